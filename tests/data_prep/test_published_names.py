"""Names, splits and points that are the publishers', or that every published number of ours is by."""

import pytest

from data_prep import cifar10, fashion_mnist, mixture, svhn


def test_classes_are_the_publishers_in_its_order():
    """batches.meta.txt of the archive; the README of zalandoresearch/fashion-mnist."""
    assert " ".join(cifar10.CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ) == fashion_mnist.CLASSES


def test_fashion_mnists_splits_are_those_of_the_readme():
    assert fashion_mnist.BOUNDS == {
        "train": ("train", 0, 50_000),
        "valid": ("train", 50_000, 60_000),
        "test": ("test", 0, 10_000),
    }


def test_addresses_are_the_publishers():
    assert cifar10.ARCHIVE.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert svhn.FILES["extra"].url == "http://ufldl.stanford.edu/housenumbers/extra_32x32.mat"
    amazon = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    assert fashion_mnist.FILES["test labels"].url == amazon + "t10k-labels-idx1-ubyte.gz"


EXPECTED = {
    "train": [-0.02378463374114126, -4.016216308899571],
    "valid": [-1.973844267844695, 1.9407896928057646],
    "test": [4.01421559116704, -3.9749224892051536],
}


def test_the_mixtures_points_are_those_of_every_published_number(tmp_path):
    splits = mixture.open_source(None, tmp_path)
    for name, first in EXPECTED.items():
        assert splits[name].read(0).image.tolist() == pytest.approx(first, rel=1e-12)
