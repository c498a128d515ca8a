"""The few labelled images of a semi-supervised run, held on the device whatever feeds the unlabelled ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ali_fast.data.balanced import balanced_draws
from ali_fast.data.loader import BetonLoader
from ali_fast.errors import InputError


class Labelled(NamedTuple):
    """images: uint8 [N, H, W, C]; labels: int64 [N]."""

    images: Tensor
    labels: Tensor


def labelled_subset(loader: BetonLoader, count: int, pool: int, seed: int, device: torch.device) -> Labelled:
    """`count` images of the split's first `pool`, equally many of each class, chosen by `seed` alone.

    Raises InputError: no classes, `count` no multiple of their number, too few images of a class.
    """
    if not loader.manifest.classes:
        raise InputError(f"--objective semi-supervised: {loader.beton.path} has no class labels")
    labels = np.ascontiguousarray(loader.beton.metadata["label"][:pool])
    (rows,) = balanced_draws(labels, loader.manifest.classes, count, 1, seed)
    images = torch.cat([loader.read(row, row + 1).images for row in rows.tolist()])
    return Labelled(images.to(device), torch.from_numpy(labels[rows]).to(device))
