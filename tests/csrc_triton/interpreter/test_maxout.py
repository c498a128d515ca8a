"""maxout's kernels, interpreted."""

import pytest
from check_maxout import CASES, DRAWN, check, check_ranges, check_ties_and_nan
from comparing import DTYPES, FP32, drawn, in_turn


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES))
def test_against_float64(case, dtype):
    check(*case, dtype=dtype, device="cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ranges_of_rows(dtype, monkeypatch):
    check_ranges(dtype, "cpu", monkeypatch)


def test_ties_and_nan():
    check_ties_and_nan(FP32, "cpu")


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cpu")
