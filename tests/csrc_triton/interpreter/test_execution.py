"""The GPU suite's test bodies, rehearsed: ops run their kernels on CPU tensors, streams and graphs have stand-ins.

So the way from each op through autograd to its launchers is run, and a mistake in a test shows without a GPU.
"""

from unittest import mock

import check_execution as check
import pytest
import torch
from comparing import DTYPES, FP32
from small_game import play
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

every_op = pytest.mark.parametrize("op", check.OPS)


class Graph(TorchDispatchMode):
    """For torch.cuda.CUDAGraph: within it operators are kept; a replay calls them again, into the same tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, outputs in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    for name in ("Stream", "current_stream", "stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph)


@pytest.mark.usefixtures("ops_run_kernels")
class TestKernels:
    @every_op
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_kernels_against_the_reference(self, op, dtype):
        check.check_against_the_reference(op, dtype, "cpu")

    @every_op
    def test_repeats_to_the_bit(self, op):
        check.check_repeats_to_the_bit(op, "cpu")

    @every_op
    def test_captured_replays_equal_eager(self, op):
        check.check_captured_replays(op, "cpu")

    @every_op
    def test_two_streams(self, op):
        check.check_two_streams(op, "cpu")

    @pytest.mark.parametrize("op", check.DIFFERENTIABLE)
    def test_scaled_fp16_gradients(self, op):
        check.check_scaled_fp16_gradients(op, "cpu")

    def test_grad_scaler_skips_an_overflow_and_then_steps(self):
        check.check_grad_scaler("cpu")

    def test_whole_game_captured(self):
        """Not compiled: the interpreter runs no compiled code."""
        check.check_whole_game("cpu", play)


def test_stand_in_replays_draw_anew():
    graph = Graph()
    with graph:
        drawn = torch.rand(4)
        doubled = drawn * 2
    before = doubled.clone()
    graph.replay()
    assert torch.equal(doubled, drawn * 2) and not torch.equal(doubled, before) and drawn.dtype == FP32
