"""batch_norm's kernels, interpreted."""

import pytest
from check_batch_norm import CASES, SPLIT_CASES, check, check_split
from comparing import DTYPES


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SPLIT_CASES.values(), ids=SPLIT_CASES.keys())
def test_ranges_of_rows_against_float64_autograd(case, dtype, monkeypatch):
    check_split(*case, dtype=dtype, device="cpu", monkeypatch=monkeypatch)
