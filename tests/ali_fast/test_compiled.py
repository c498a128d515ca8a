"""What Inductor is told."""

import pytest
import torch

from ali_fast import capture
from ali_fast import step as step_module
from ali_fast.kernels import OPS, Kernels
from ali_fast.step import Step, turn_options

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def told(monkeypatch):
    options = []
    monkeypatch.setattr(torch, "compile", lambda function, **told: options.append(told["options"]) or function)
    return options


def test_options_are_those_given_or_the_devices(told):
    capture.compiled(len, GPU)
    capture.compiled(len, CPU)
    capture.compiled(len, GPU, {"epilogue_fusion": True})
    capture.compiled(len, GPU, {})
    assert told == [capture.GPU_OPTIONS, {}, {"epilogue_fusion": True}, {}]


@pytest.mark.parametrize(
    ("kind", "backend", "options"),
    [
        ("maxout", "inductor", capture.GPU_OPTIONS),
        ("norm", "inductor", capture.COMPUTED_AGAIN),
        ("norm", "triton", capture.COMPUTED_AGAIN),
        # Philox in torch's operations: with its rounds computed again the step did not compile within four minutes.
        ("norm", "eager", capture.GPU_OPTIONS),
    ],
)
def test_a_turns_are_by_what_d_is_and_who_draws(make_small, kind, backend, options):
    model = make_small(kind)
    model.kernels = Kernels(**dict.fromkeys(OPS, backend))
    assert turn_options(model, GPU) == options
    assert turn_options(model, CPU) == {}


@pytest.mark.parametrize("beside", [False, True])
def test_a_step_compiles_by_its_turns_or_by_those_given(make_small, told, monkeypatch, beside):
    monkeypatch.setattr(step_module, "turn_options", lambda model, device: {"its": "own"})
    for given, expected in ((None, {"its": "own"}), ({"as": "given"}, {"as": "given"})):
        told.clear()
        Step(make_small("norm"), learning_rate=1e-3, options=given, overlap_encoder=beside)
        assert told.count(expected) == (3 if beside else 1)
