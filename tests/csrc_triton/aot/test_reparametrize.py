"""reparametrize compiles for every architecture within its gates."""

import torch
from ahead import Case, check, with_inductor_scalars

from csrc_triton.reparametrize import launch_backward, launch_forward


def _run(threshold: int):
    def run(dtype: torch.dtype) -> None:
        params = torch.empty(100, 128, 1, 1, device="meta", dtype=dtype)
        z = torch.empty(100, 64, 1, 1, device="meta", dtype=dtype)
        seeds = torch.empty(9, dtype=torch.int64, device="meta")
        joint = launch_forward(params, z, threshold, seeds, 0)
        launch_backward(joint, params, threshold, seeds, 0)

    return run


# Narrow loads: one element a thread. cos takes 32 bytes of stack for the reduction of large angles (triton#1756).
CASES = {
    "drop": Case(_run(13107), wide_loads=False, stack_bytes=32),
    "no-drop": Case(_run(0), wide_loads=False, stack_bytes=32, further=True),
}
CASES |= with_inductor_scalars(CASES)


def test_cubin(cubin_case, cubins):
    case, dtype, arch = cubin_case
    for cubin in cubins(case, dtype, arch):
        check(cubin, case, dtype)
