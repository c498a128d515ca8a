import pytest

from ali_fast.mixture import results


def run(number, covered=20, near=20, reverse_kl=0.2):
    return {"run": number, "modes": {"covered": covered, "near": near, "reverse_kl": reverse_kl}}


@pytest.mark.parametrize(
    "better",
    [{"covered": 21, "near": 1}, {"near": 21, "reverse_kl": 3.0}, {"reverse_kl": 0.1}],
    ids=["covered", "near", "balanced"],
)
def test_the_best_covers_most_then_is_near_most_then_is_balanced(better):
    assert results.best([run(0), run(1, **better), run(2), {"run": 3, "modes": None}]) == 1
    assert results.best([{"run": 3, "modes": None}]) is None
