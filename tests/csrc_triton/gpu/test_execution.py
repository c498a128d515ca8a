"""Every op as a step runs it, on the device."""

import check_execution as check
import pytest
import torch
from comparing import DTYPES
from small_game import play

every_op = pytest.mark.parametrize("op", check.OPS)


@every_op
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_against_the_reference(op, dtype):
    check.check_against_the_reference(op, dtype, "cuda")


@every_op
def test_repeats_to_the_bit(op):
    check.check_repeats_to_the_bit(op, "cuda")


@every_op
def test_captured_replays_equal_eager(op):
    check.check_captured_replays(op, "cuda")


@every_op
def test_two_streams(op):
    check.check_two_streams(op, "cuda")


@pytest.mark.parametrize("op", check.DIFFERENTIABLE)
def test_scaled_fp16_gradients(op):
    check.check_scaled_fp16_gradients(op, "cuda")


def test_grad_scaler_skips_an_overflow_and_then_steps():
    check.check_grad_scaler("cuda")


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_whole_game_compiled_and_captured(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by default convolutions round to 10 bits
    check.check_whole_game("cuda", torch.compile(play, fullgraph=True))
