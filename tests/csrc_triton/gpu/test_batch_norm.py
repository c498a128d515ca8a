"""batch_norm's kernels on the device."""

import pytest
from check_batch_norm import CASES, DRAWN, DRAWN_SPLIT, SPLIT_CASES, check, check_split
from comparing import DTYPES, drawn


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SPLIT_CASES.values(), ids=SPLIT_CASES.keys())
def test_ranges_of_rows_against_float64_autograd(case, dtype, monkeypatch):
    check_split(*case, dtype=dtype, device="cuda", monkeypatch=monkeypatch)


# As the networks have them: ranges of several tiles by the launcher's own choice.
PAPER_CASES = {
    "CelebA, encoder and decoder": ((100, 64, 63, 63), 0.02, 0.0),
    "CelebA, discriminator": ((200, 128, 29, 29), 0.02, 0.2),
    "CIFAR-10": ((100, 32, 28, 28), 0.1, 0.0, 20.0, 1.7),
    "one launch each way": ((100, 256, 4, 4), 0.1, 0.0),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", PAPER_CASES.values(), ids=PAPER_CASES.keys())
def test_maps_of_the_paper_against_float64_autograd(case, dtype):
    check(*case, dtype=dtype, device="cuda")


@drawn(**DRAWN)
def test_drawn_shapes(**case):
    check(**case, device="cuda")


@drawn(**DRAWN_SPLIT)
def test_drawn_ranges_of_rows(**case):
    with pytest.MonkeyPatch.context() as monkeypatch:
        check_split(**case, device="cuda", monkeypatch=monkeypatch)
