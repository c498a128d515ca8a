import numpy as np
import pytest

from ali_fast.data.balanced import balanced_draws
from ali_fast.errors import InputError

CLASSES = tuple("abc")


def test_draws_are_balanced_and_by_seed():
    labels = np.random.default_rng(0).integers(0, 3, 200)
    draws = balanced_draws(labels, CLASSES, 30, 4, seed=5)
    for draw in draws:
        assert np.bincount(labels[draw]).tolist() == [10, 10, 10]
        assert len(set(draw.tolist())) == 30
    assert not np.array_equal(draws[0], draws[1])
    again = balanced_draws(labels, CLASSES, 30, 2, seed=5)
    assert np.array_equal(draws[1], again[1])
    assert not np.array_equal(draws[0], balanced_draws(labels, CLASSES, 30, 1, seed=6)[0])


def test_each_class_is_shuffled_by_itself():
    (draw,) = balanced_draws(np.repeat([0, 1], 100), ("a", "b"), 20, 1, seed=5)
    assert not np.array_equal(draw[:10], draw[10:] - 100)


@pytest.mark.parametrize(("total", "message"), [(31, "multiple of the 3 classes"), (0, "multiple"), (30, "'c' has 4")])
def test_draws_that_cannot_be_are_named(total, message):
    labels = np.array([0] * 50 + [1] * 50 + [2] * 4)
    with pytest.raises(InputError, match=message):
        balanced_draws(labels, CLASSES, total, 1, seed=0)
