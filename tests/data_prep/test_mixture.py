import numpy as np
import pytest

from ali_fast.data.beton import Beton
from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from data_prep import prepare
from data_prep.mixture import SEED, open_source


def test_splits_are_points_of_the_grid_with_their_components(tmp_path):
    manifests = prepare("mixture", data_dir=tmp_path)
    assert [(m.split, m.count, m.shape) for m in manifests] == [
        ("train", 100_000, (2,)),
        ("valid", 10_000, (2,)),
        ("test", 10_000, (2,)),
    ]
    loader = BetonLoader(beton_path(tmp_path, "mixture", "train"), batch_size=100)
    batch = loader.read_all()
    assert batch.labels is not None
    points, components = batch.images.numpy(), batch.labels.numpy()
    means = np.array([[float(v) for v in name.split(",")] for name in loader.manifest.classes])
    assert sorted(map(tuple, means)) == [(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)]
    offsets = (points - means[components]) / 0.05
    assert abs(offsets.mean()) < 0.01
    assert abs(offsets.std() - 1) < 0.01
    assert np.bincount(components).min() > 3700
    # from the generator itself: one stream a split
    generator = np.random.default_rng([SEED, 1])
    drawn = generator.integers(25, size=10_000)
    valid = Beton(beton_path(tmp_path, "mixture", "valid"))
    assert np.array_equal(valid.metadata["label"], drawn)
    assert np.array_equal(
        valid.metadata["x1"], means[drawn][:, 1] + 0.05 * generator.standard_normal((10_000, 2))[:, 1]
    )


def test_the_points_are_always_the_same(tmp_path):
    first, second = (open_source(None, tmp_path)["test"] for _ in range(2))
    assert all(np.array_equal(first.read(i).image, second.read(i).image) for i in (0, 1, 9_999))


def test_there_is_no_source_to_give(tmp_path):
    with pytest.raises(InputError, match="leave --source out"):
        open_source(tmp_path, tmp_path)
