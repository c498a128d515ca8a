"""maxout's kernels on the device."""

import pytest
from check_maxout import CASES, DRAWN, check, check_ranges, check_ties_and_nan
from comparing import DTYPES, drawn


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64(case, dtype):
    check(*case, dtype=dtype, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ranges_of_rows(dtype, monkeypatch):
    check_ranges(dtype, "cuda", monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ties_and_nan(dtype):
    check_ties_and_nan(dtype, "cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["after", "before"])
def test_a_map_of_the_paper(order, dtype):
    """CIFAR-10's largest: programs of the backward take several tiles each."""
    check((200, 32, 28, 28), "tied", 0.5, order, dtype=dtype, device="cuda")


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cuda")
