"""reparametrize's kernels, interpreted."""

import pytest
from check_reparametrize import CASES, DRAWN, check
from comparing import drawn, in_turn


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES))
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cpu")


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cpu")
