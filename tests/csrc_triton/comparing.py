"""Tolerances and test data of the kernel tests.

The reference is float64 on inputs first rounded to the data type. The error of a tensor is max |difference| over
max |reference|. Half a unit in the last place is 2^-11 in fp16 and 2^-9 in bf16; Triton's interpreter truncates to
bf16, which makes it a whole unit.
"""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = [FP32, FP16, BF16]


def drawn(**strategies):
    """A test of arguments that Hypothesis draws, the same in every run, and of each data type."""
    return lambda test: settings(max_examples=12, deadline=None, derandomize=True)(
        given(**strategies, dtype=st.sampled_from(DTYPES))(test)
    )


def in_turn(cases):
    """Parameters of the interpreter's tests, where time counts: every case in fp32, every other in fp16 or bf16 too."""
    low = {0: FP16, 2: BF16}
    return [
        pytest.param(case, dtype, id=f"{name}-{dtype}")
        for i, (name, case) in enumerate(cases.items())
        for dtype in (FP32, low.get(i % 4))
        if dtype
    ]


# kind of tensor -> data type -> bound on the error. bf16: on a GPU, which rounds to nearest even.
TOLERANCES = {
    "map": {FP32: 1e-5, FP16: 1e-3, BF16: 4e-3},  # y, dx, z_joint, dparams
    "maxout": {FP32: 1e-6, FP16: 1e-3, BF16: 4e-3},
    "parameter": {FP32: 2e-5, FP16: 2e-5, BF16: 2e-5},  # dw, db: fp32 whatever the data
    "statistic": {FP32: 1e-5, FP16: 1e-5, BF16: 1e-5},
    "loss": {FP32: 1e-6, FP16: 1e-3, BF16: 4e-3},  # of adversarial_loss: seeds
    "loss32": {FP32: 1e-6, FP16: 1e-6, BF16: 1e-6},  # of adversarial_loss: what is fp32 whatever the data
}


def tolerance(kind: str, dtype: torch.dtype, truncates: bool) -> float:
    """truncates: the result comes from the interpreter."""
    bound = TOLERANCES[kind][dtype]
    return 2 * bound if truncates and dtype == BF16 and bound == 4e-3 else bound


def error(got: Tensor, want: Tensor) -> float:
    difference = (got.detach().cpu().double() - want.detach().cpu().double()).abs().max()
    return float(difference / want.detach().abs().max().clamp_min(1e-30))


def assert_close(got: Tensor, want: Tensor, kind: str, dtype: torch.dtype, what: str) -> None:
    """got against a float64 reference; results of a CPU tensor are taken for the interpreter's."""
    assert got.shape == want.shape, f"{what}: shape {list(got.shape)}, not {list(want.shape)}"
    assert got.isfinite().all(), f"{what}: not finite"
    bound, found = tolerance(kind, dtype, got.device.type == "cpu"), error(got, want)
    assert found <= bound, f"{what}: error {found:.2e}, at most {bound:.0e} allowed"


def random_map(
    shape: Sequence[int], dtype: torch.dtype, device: str, *, seed: int = 0, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Normal numbers in channels-last memory, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator) * std + mean
    return values.to(device, dtype).contiguous(memory_format=torch.channels_last)


def random_vector(size: int, device: str, *, seed: int = 1, mean: float = 0.0, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=generator) * std + mean).to(device)


def some_seeds(device: str) -> Tensor:
    """int64 [4]: a small one, one beyond 32 bits, a negative one, the largest."""
    return torch.tensor([42, 2**40 + 12345, -3, 2**63 - 1], device=device)
