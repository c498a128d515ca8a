"""reparametrize's kernels on the device."""

import pytest
from check_reparametrize import CASES, DRAWN, check
from comparing import DTYPES, drawn


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cuda")


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cuda")
