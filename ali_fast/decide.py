"""What will be used on this machine, and why: the same answers for `train` and for `doctor`."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ali_fast.errors import InputError


class DeviceDecision(NamedTuple):
    """Where to train."""

    device: torch.device
    why: str


def device(asked: str = "auto") -> DeviceDecision:
    """asked: auto, cpu or cuda. Raises InputError where CUDA is asked for and absent."""
    if asked == "cpu":
        return DeviceDecision(torch.device("cpu"), "asked for")
    if torch.cuda.is_available():
        return DeviceDecision(torch.device("cuda", torch.cuda.current_device()), "CUDA is available")
    absent = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device was found"
    if asked == "cuda":
        raise InputError(f"--device cuda: {absent}; use --device cpu or auto")
    return DeviceDecision(torch.device("cpu"), absent)


def device_class(where: torch.device) -> str:
    """The key of the committed kernel choice: "cpu", or "sm_90" and the like."""
    if where.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(where)
    return f"sm_{major}{minor}"


def dtype(amp: bool, where: torch.device) -> tuple[torch.dtype, str]:
    """What the networks compute in, and why. bf16 needs no loss scaling; fp16 is for GPUs without it."""
    if not amp:
        return torch.float32, "--amp is off"
    if where.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "--amp, and the device has bf16"
    return torch.float16, "--amp, and the device has no bf16: fp16 with loss scaling"


def compiles(asked: bool = True) -> tuple[bool, str]:
    """Whether the step is compiled, and why or why not."""
    if not asked:
        return False, "--no-compile"
    from ali_fast.capture import missing_compiler  # two seconds of Inductor, which inference does without

    lacking = missing_compiler()
    return lacking is None, lacking or "torch.compile has what it needs"
