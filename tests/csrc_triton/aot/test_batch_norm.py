"""batch_norm compiles for every architecture within its gates."""

import torch
from ahead import Case, check, with_inductor_scalars

from csrc_triton.batch_norm import launch_backward, launch_forward
from csrc_triton.launch import TILES


def _run(n: int, channels: int, size: int, threshold: int):
    def run(dtype: torch.dtype) -> None:
        x = torch.empty(n, channels, size, size, device="meta", dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.empty(channels, device="meta")
        seeds = torch.empty(9, dtype=torch.int64, device="meta")
        y, mean, var = launch_forward(x, w, w, 1e-4, 0.1, threshold, seeds, 3)
        launch_backward(y, x, mean, var, w, w, 1e-4, 0.1, threshold, seeds, 3)

    return run


DROP = 13107
CASES = {
    "small-1600-rows": Case(_run(100, 256, 4, 0), further=True),
    "small-1600-rows-drop": Case(_run(100, 256, 4, DROP), further=True),
    "small-200-rows-drop": Case(_run(200, 512, 1, DROP)),
    "small-100-rows": Case(_run(100, 512, 1, 0), further=True),
    "small-900-rows": Case(_run(100, 512, 3, 0), further=True),
    "large": Case(_run(100, 64, 13, 0), further=True),
    "large-drop": Case(_run(200, 128, 13, DROP)),
    # Triton knows of an integer argument whether 16 divides it, and nothing of 8.
    **{f"large-C{c}": Case(_run(100, c, 28, 0), wide_loads=c % 16 == 0, further=True) for c in TILES if c < 64},
}
CASES |= with_inductor_scalars(CASES)


def test_cubin(cubin_case, cubins):
    case, dtype, arch = cubin_case
    for cubin in cubins(case, dtype, arch):
        check(cubin, case, dtype)
