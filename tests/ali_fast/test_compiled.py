"""What Inductor is told."""

import pytest
import torch

from ali_fast import capture
from ali_fast.kernels import OPS, Kernels
from ali_fast.mixture import step as mixture_step
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.nets import Sizes
from ali_fast.mixture.setting import Setting
from ali_fast.step import Step

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def told(monkeypatch):
    options = []
    monkeypatch.setattr(torch, "compile", lambda function, **told: options.append(told["options"]) or function)
    return options


def test_philox_in_torchs_operations_is_written_out_round_by_round(told):
    """Computed again for every reader, as all else is, the mixture's step did not compile within four minutes."""
    for device in (GPU, CPU):
        for philox in (False, True):
            capture.compiled(len, device, {"epilogue_fusion": True}, philox=philox)
    inlined, written, *on_cpu = told
    assert inlined["realize_opcount_threshold"] > 30 >= written["realize_opcount_threshold"]
    assert on_cpu == [{"epilogue_fusion": True}] * 2
    assert all(options["epilogue_fusion"] for options in told)


@pytest.mark.parametrize(("backend", "philox"), [("eager", True), ("triton", False), ("inductor", False)])
def test_which_steps_draw_so(make_small, backend, philox):
    model = make_small("maxout")
    model.kernels = Kernels(**dict.fromkeys(OPS, backend))
    assert Step(model, learning_rate=1e-3, compile=False).philox is philox


def test_the_mixtures_does(monkeypatch):
    asked = []
    monkeypatch.setattr(mixture_step, "compiled", lambda function, device, **options: asked.append(options) or function)
    model = MODELS["gan"](1, Sizes(hidden=4, units=4))
    model.initialize([0], [0.02])
    mixture_step.Step(model, torch.zeros(4, 2), [Setting()], [0], total_steps=1)
    assert asked[0] == {"philox": True}
