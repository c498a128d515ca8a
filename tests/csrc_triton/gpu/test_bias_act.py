"""bias_act's kernels on the device."""

import pytest
from check_bias_act import CASES, check
from comparing import DTYPES


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cuda")
