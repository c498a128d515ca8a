"""batch_norm's kernels, interpreted."""

import pytest
from check_batch_norm import CASES, DRAWN, DRAWN_SPLIT, SPLIT_CASES, check, check_split
from comparing import drawn, in_turn


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES))
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cpu")


@pytest.mark.parametrize(("case", "dtype"), in_turn(SPLIT_CASES))
def test_ranges_of_rows_against_float64_autograd(case, dtype, monkeypatch):
    check_split(*case, dtype=dtype, device="cpu", monkeypatch=monkeypatch)


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cpu")


@drawn(**DRAWN_SPLIT)
def test_drawn_ranges_of_rows(**case):
    with pytest.MonkeyPatch.context() as monkeypatch:
        check_split(**case, device="cpu", monkeypatch=monkeypatch)
