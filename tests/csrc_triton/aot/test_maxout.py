"""maxout compiles for every architecture within its gates."""

import torch
from ahead import Case, check, with_inductor_scalars

from csrc_triton.launch import TILES
from csrc_triton.maxout import launch_backward, launch_forward


def _run(channels: int, *, bias: str = "tied", threshold: int = 32768, before: bool = False):
    """channels: of the output."""

    def run(dtype: torch.dtype) -> None:
        x = torch.empty(200, 2 * channels, 10, 10, device="meta", dtype=dtype).to(memory_format=torch.channels_last)
        shapes = {"tied": (2 * channels,), "untied": (2 * channels, 10, 10)}
        b = torch.empty(shapes[bias], device="meta") if bias in shapes else None
        y, code = launch_forward(x, b, threshold, before, torch.empty(9, dtype=torch.int64, device="meta"), 3)
        launch_backward(y, code, threshold, bias == "tied")

    return run


# Eight channels load less at once: Triton knows of an integer argument whether 16 divides it, and nothing of 8. The
# networks' narrowest maxout leaves 16.
CASES = {
    "C64": Case(_run(64)),
    "C64-before": Case(_run(64, before=True), further=True),
    "C64-no-drop": Case(_run(64, threshold=0), further=True),
    "C64-no-bias": Case(_run(64, bias="none"), further=True),
    "C64-untied": Case(_run(64, bias="untied"), further=True),
    **{f"C{c}": Case(_run(c), wide_loads=c % 16 == 0, further=True) for c in TILES if c < 64},
}
CASES |= with_inductor_scalars(CASES)


def test_cubin(cubin_case, cubins):
    case, dtype, arch = cubin_case
    for cubin in cubins(case, dtype, arch):
        check(cubin, case, dtype)
