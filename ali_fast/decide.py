"""What will be used on this machine, and why: the same answers for `train` and for `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ali_fast.errors import InputError


class DeviceDecision(NamedTuple):
    """Where to train."""

    device: torch.device
    why: str


def device(asked: str = "auto") -> DeviceDecision:
    """asked: auto, cpu or cuda. Raises InputError for another, and where CUDA is asked for and absent."""
    if asked not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {asked!r}: auto, cpu or cuda")
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


SLOW_BF16 = "this CPU has no instructions for bf16: that costs time, float32 is faster"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware: AVX-512 BF16 or AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


TF32 = "; convolutions in TF32, as torch has them, other products not"


def dtype(amp: bool, where: torch.device) -> tuple[torch.dtype, str]:
    """What the networks compute in, and why. bf16 needs no loss scaling; fp16 is for GPUs without it."""
    if not amp:
        return torch.float32, "--amp is off" + (TF32 if where.type == "cuda" else "")
    if where.type == "cpu":
        return torch.bfloat16, "--amp" if cpu_has_bf16() else f"--amp; {SLOW_BF16}"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "--amp, and the device has bf16"
    return torch.float16, "--amp, and the device has no bf16: fp16 with loss scaling"


OVERLAP_GAINS = ("sm_90",)  # profiles/results/2026-11-28-h100
NO_GPU = "the device is no GPU"


def overlaps(asked: str, where: torch.device) -> tuple[bool, str]:
    """Whether a captured step runs E beside G and weight gradients beside both, for `--overlap` asked, and why."""
    if where.type == "cpu":
        return False, NO_GPU
    if asked != "auto":
        return asked == "yes", "asked for"
    name = device_class(where)
    gains = name in OVERLAP_GAINS
    return gains, f"the full step was faster on {name}" if gains else f"it was not measured on {name}"


CPU_STREAMS = "nothing is gained on a CPU"
RESIDENT_SHARE = 0.25  # of the free memory, which networks and activations want too


def resident(asked: str, where: torch.device, needed_bytes: int) -> tuple[bool, str]:
    """Whether a split of `needed_bytes` is held on the device, for `--data` asked, and why or why not.

    Raises InputError where that is asked for and does not fit.
    """
    if asked == "stream":
        return False, "asked for"
    if asked == "auto" and where.type == "cpu":
        return False, CPU_STREAMS
    free = _free_bytes(where)
    of_free = f"{needed_bytes / 1e9:.2f} GB of {free / 1e9:.2f} GB free"
    if asked == "auto":
        fits = needed_bytes <= RESIDENT_SHARE * free
        return fits, of_free if fits else f"it would take {of_free}"
    if needed_bytes > free:
        raise InputError(f"--data resident: the training images do not fit ({of_free}); use --data stream")
    return True, f"asked for, {of_free}"


def _free_bytes(where: torch.device) -> int:
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def compiles(asked: bool = True, moves_what_it_reads: bool = False) -> tuple[bool, str]:
    """Whether the step is compiled, and why or why not.

    moves_what_it_reads: whether one program for a CPU takes the gradients and moves the weights by them. Torch 2.11 may
    move a weight before the product that should have read it, and says nothing (pytorch/pytorch#177631).
    """
    if not asked:
        return False, "--no-compile"
    if moves_what_it_reads and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12):
        return False, f"torch {torch.__version__} compiles it to wrong gradients on a CPU; take 2.12 or later"
    from ali_fast.capture import missing_compiler  # two seconds of Inductor, which inference does without

    lacking = missing_compiler()
    return lacking is None, lacking or "torch.compile has what it needs"
