import numpy as np
import pytest
from sklearn.datasets import load_digits

from ali_fast.data.beton import Beton
from ali_fast.errors import InputError
from data_prep import prepare
from data_prep.digits import open_source


def test_splits_are_scikit_learns_digits_in_file_order(tmp_path):
    manifests = prepare("digits", data_dir=tmp_path)
    assert [(m.split, m.count) for m in manifests] == [("train", 1297), ("valid", 200), ("test", 300)]
    betons = [Beton(tmp_path / "digits" / f"{m.split}.beton") for m in manifests]
    images = np.concatenate([beton.arrays("image", 0, beton.manifest.count) for beton in betons])
    labels = np.concatenate([beton.metadata["label"] for beton in betons])
    bunch = load_digits()
    assert np.array_equal(labels, bunch.target)
    assert images.shape == (1797, 8, 8, 1)
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}
    assert np.array_equal(np.round(images[..., 0] / 255 * 16), bunch.images)
    assert manifests[0].classes == tuple("0123456789")


def test_there_is_no_source_to_give(tmp_path):
    with pytest.raises(InputError, match="leave --source out"):
        open_source(tmp_path, tmp_path)
