"""A prepared split as host batches: streamed by FFCV in an order of our own, or read at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ali_fast.data.beton import Beton
from ali_fast.data.order import Order
from ali_fast.data.samples import Samples
from ali_fast.data.schema import damaged


class BetonLoader:
    """One split, checked when it is opened (milliseconds; FFCV is imported by the first `epoch` only).

    Every batch is a function of (seed, epoch, number), so `epoch(e, start=k)` goes on exactly where a run was stopped.
    Batches are `batch_size` samples of this `rank`; the samples beyond the last full batch are left out.

    Raises InputError: missing or damaged file (naming it, the fault, and the command that mends it), a batch larger
    than the set. Attributes: beton, manifest, order.
    """

    def __init__(self, path: Path, *, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.beton = Beton(path)
        self.manifest = self.beton.manifest
        self.order = Order(self.manifest.count, batch_size, seed, rank, world)
        self._loader: Any = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def compile(self) -> None:
        """Imports FFCV and lets it compile its reader: seconds, once. Without it, the first batch takes them."""
        with closing(self.epoch(0)) as batches:
            next(batches)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Samples, None, None]:
        """The batches of an epoch, from number `start` on. Their tensors are valid until the next batch is asked for.

        Raises DamagedError as soon as the file was cut or changed under it. Leaving early stops the reading thread.
        """
        from ali_fast.data import ffcv_stream

        if self._loader is None:
            self._loader = ffcv_stream.open_loader(self.beton.fd, self.order.batch_size, self.manifest.fields)
        self.beton.check_unchanged()
        order = self.order.epoch(epoch, start)
        if not len(order):
            return
        stream = ffcv_stream.Stream(self._loader, order)
        try:
            for arrays in stream:
                self.beton.check_unchanged()
                yield _batch({field.name: a for field, a in zip(self.manifest.fields, arrays, strict=True)})
        except ffcv_stream.ShortReadError:
            self.beton.check_unchanged()
            raise damaged(self.beton.path, "could not be read to its end") from None
        finally:
            stream.close()

    def read_all(self) -> Samples:
        """The whole split in file order, in memory of its own, without FFCV."""
        return self.read(0, self.manifest.count)

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) in file order, in memory of their own."""
        arrays = {}
        for name, kind, _ in self.manifest.fields:
            if kind == "array":
                arrays[name] = torch.from_numpy(self.beton.arrays(name, start, stop))
            else:
                arrays[name] = torch.from_numpy(np.ascontiguousarray(self.beton.metadata[name][start:stop]))[:, None]
        self.beton.check_unchanged()
        return _batch(arrays)

    def some_images(self, count: int) -> torch.Tensor:
        """The first `count` of epoch 0's order, which knows no classes, of all ranks: uint8 [<= count, H, W, C]."""
        order = dataclasses.replace(self.order, batch_size=self.order.batch_size * self.order.world, rank=0, world=1)
        return torch.cat([self.read(i, i + 1).images for i in order.epoch(0)[:count].tolist()])


def first_samples(path: Path, most: int) -> Samples:
    """The first samples of a split, at most `most`, in file order. Raises InputError as BetonLoader."""
    loader = BetonLoader(path, batch_size=1)
    return loader.read(0, min(most, loader.manifest.count))


def _batch(arrays: dict[str, torch.Tensor]) -> Samples:
    images = arrays["image"] if "image" in arrays else torch.cat([arrays["x0"], arrays["x1"]], dim=1)
    labels = arrays["label"][:, 0] if "label" in arrays else None
    return Samples(images, labels, arrays.get("attributes"))
