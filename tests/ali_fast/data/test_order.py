import numpy as np
import pytest

from ali_fast.data.order import Order, ffcv_seed
from ali_fast.errors import InputError


def test_order_is_a_function_of_seed_and_epoch():
    order = Order(count=50, batch_size=5, seed=3)
    assert np.array_equal(order.epoch(4), Order(count=50, batch_size=5, seed=3).epoch(4))
    assert sorted(order.epoch(4)) == list(range(50))
    assert not np.array_equal(order.epoch(4), order.epoch(5))


def test_no_two_seeds_share_an_epoch():
    # FFCV adds the epoch to the seed: unhashed, seed 3's epoch 5 would be seed 4's epoch 4
    epochs = {Order(count=50, batch_size=5, seed=s).epoch(e).tobytes() for s in range(20) for e in range(20)}
    assert len(epochs) == 400


def test_formula():
    expected = np.random.default_rng(ffcv_seed(7) + 2).permutation(np.arange(23))[:20]
    assert np.array_equal(Order(count=23, batch_size=10, seed=7).epoch(2), expected)


def test_start_skips_whole_batches():
    order = Order(count=103, batch_size=10, seed=1)
    assert len(order) == 10
    assert np.array_equal(order.epoch(0, start=7), order.epoch(0)[70:])
    assert len(order.epoch(0, start=10)) == 0


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_out_the_batches_of_one_device(world):
    one = Order(count=100, batch_size=6 * world, seed=5)
    ranks = [Order(count=100, batch_size=6, seed=5, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(one)}
    together = np.concatenate([rank.epoch(2).reshape(-1, 6) for rank in ranks], axis=1)
    assert np.array_equal(together, one.epoch(2).reshape(-1, 6 * world))


@pytest.mark.parametrize(
    ("batch_size", "world", "says"), [(0, 1, "at least 1"), (11, 1, "at most 10"), (6, 2, "12: larger .* at most 10")]
)
def test_batches_that_cannot_be(batch_size, world, says):
    with pytest.raises(InputError, match=says):
        Order(count=10, batch_size=batch_size, world=world)
