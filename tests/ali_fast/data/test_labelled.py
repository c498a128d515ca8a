"""The labelled subset: whose labels, from where."""

import numpy as np
import torch

from ali_fast.data.labelled import labelled_subset
from ali_fast.data.loader import BetonLoader


def test_labelled_images_have_their_own_labels_and_come_from_the_pool(make):
    made = make(count=200)
    classes = int(made.labels.max()) + 1
    loader = BetonLoader(made.path, batch_size=1)
    labelled = labelled_subset(loader, 2 * classes, 80, 3, torch.device("cpu"))
    assert torch.bincount(labelled.labels).tolist() == [2] * classes
    for image, label in zip(labelled.images.numpy(), labelled.labels.tolist(), strict=True):
        (row,) = np.flatnonzero((made.images == image).all(axis=(1, 2, 3)))
        assert row < 80  # what lies behind is held out
        assert made.labels[row] == label
