"""adversarial_loss compiles for every architecture within its gates."""

import torch
from ahead import Case, check

from csrc_triton.adversarial_loss import launch_forward


def _run(scaled: bool):
    def run(dtype: torch.dtype) -> None:
        launch_forward(torch.empty(200, device="meta", dtype=dtype), torch.empty((), device="meta") if scaled else None)

    return run


# Narrow loads: a few hundred logits.
CASES = {
    "scaled": Case(_run(True), wide_loads=False),
    "plain": Case(_run(False), wide_loads=False, further=True),
}


def test_cubin(cubin_case, cubins):
    case, dtype, arch = cubin_case
    for cubin in cubins(case, dtype, arch):
        check(cubin, case, dtype)
