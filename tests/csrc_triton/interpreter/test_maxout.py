"""maxout's kernels, interpreted."""

import pytest
from check_maxout import CASES, check, check_ranges, check_ties_and_nan
from comparing import DTYPES, FP32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64(case, dtype):
    check(*case, dtype=dtype, device="cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ranges_of_rows(dtype, monkeypatch):
    check_ranges(dtype, "cpu", monkeypatch)


def test_ties_and_nan():
    check_ties_and_nan(FP32, "cpu")
