"""bias_act compiles for every architecture within its gates."""

import torch
from ahead import Case, check, with_inductor_scalars

from csrc_triton.bias_act import launch_backward, launch_forward
from csrc_triton.launch import TILES


def _run(channels: int, *, bias: bool, slope: float, threshold: int):
    def run(dtype: torch.dtype) -> None:
        x = torch.empty(200, channels, 14, 14, device="meta", dtype=dtype).to(memory_format=torch.channels_last)
        b = torch.empty(channels, device="meta") if bias else None
        seeds = torch.empty(9, dtype=torch.int64, device="meta")
        launch_forward(x, b, slope, threshold, seeds, 3)
        launch_backward(x, x if slope != 1.0 else None, slope, threshold, seeds, 3, bias)

    return run


CASES = {
    "bias-act-drop": Case(_run(1024, bias=True, slope=0.1, threshold=13107)),
    "drop": Case(_run(512, bias=False, slope=1.0, threshold=13107), further=True),
    "bias-act": Case(_run(1024, bias=True, slope=0.1, threshold=0), further=True),
    "image-drop": Case(_run(3, bias=False, slope=1.0, threshold=13107), wide_loads=False, further=True),
    **{
        f"{width}-channel tile": Case(
            _run(width, bias=True, slope=0.1, threshold=13107), wide_loads=width % 16 == 0, further=True
        )
        for width in TILES
        if width < 64
    },
}
CASES |= with_inductor_scalars(CASES)


def test_cubin(cubin_case, cubins):
    case, dtype, arch = cubin_case
    for cubin in cubins(case, dtype, arch):
        check(cubin, case, dtype)
