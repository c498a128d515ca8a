"""A run under evaluation: its newest checkpoint and the prepared splits it is judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ali_fast import presets
from ali_fast.api import check_same_data, load
from ali_fast.config import TrainConfig
from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import Manifest, NotPreparedError, beton_path, read_manifest
from ali_fast.errors import InputError
from ali_fast.inference import Inference
from ali_fast.presets import Preset
from ali_fast.run_directory import RunDirectory


@dataclass(frozen=True)
class Split:
    """Images in file order, and what is known of them."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C]."""
    labels: npt.NDArray[np.int64]
    """[N]; empty for a set without classes."""
    attributes: npt.NDArray[np.uint8]
    """[N, A]; A = 0 for a set without attributes."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Split:
        return Split(self.images[part], self.labels[part], self.attributes[part])


@dataclass(frozen=True)
class Subject:
    """What every task takes."""

    run: RunDirectory
    config: TrainConfig
    preset: Preset
    inference: Inference
    step: int
    """Of the checkpoint."""

    def manifest(self, split: str) -> Manifest:
        return read_manifest(beton_path(self.config.data_dir, self.config.dataset, split))

    def read(self, split: str) -> Split:
        """All of a split. Raises InputError for one that is missing or damaged."""
        batch = BetonLoader(beton_path(self.config.data_dir, self.config.dataset, split), batch_size=1).read_all()
        count = len(batch.images)
        return Split(
            batch.images.numpy(),
            np.empty(0, np.int64) if batch.labels is None else batch.labels.numpy(),
            np.empty((count, 0), np.uint8) if batch.attributes is None else batch.attributes.numpy(),
        )

    def some(self, split: str, count: int, seed: int) -> npt.NDArray[np.uint8]:
        """At most `count` images of a split, drawn by seed: in file order their classes may stand together."""
        path = beton_path(self.config.data_dir, self.config.dataset, split)
        return BetonLoader(path, batch_size=1, seed=seed).some_images(count).numpy()

    def test(self, task: str) -> Split:
        """The test split. Raises InputError for a data set that has none, or whose settings are chosen on it."""
        split = self.preset.test_split
        if split == self.preset.valid_split and task in ("classes", "svm"):
            raise InputError(
                f"--task {task}: {self.config.dataset} has no images to measure on but those that settings are chosen "
                f"on ({split}); evaluate a run on a data set with a test split"
            )
        try:
            return self.read(split)
        except NotPreparedError:
            raise InputError(
                f"--task {task}: {self.config.dataset} has no test split in {self.config.data_dir}, and {task} is "
                f"measured there; evaluate a run on a data set with one"
            ) from None

    def y(self, split: Split) -> npt.NDArray[np.integer] | None:
        """What a conditional run is told of a split's images; None for another run."""
        condition = self.inference.condition
        if condition is None:
            return None
        return split.labels if condition.kind == "classes" else split.attributes

    def pool_and_held_out(self) -> tuple[Split, Split]:
        """Training images to draw labels from, and those that settings are chosen on."""
        whole = self.read(self.preset.labelled_split)
        split, rows = self.preset.choosing
        held_out = (whole if split == self.preset.labelled_split else self.read(split))[rows]
        return whole[: len(whole) - self.preset.held_out], held_out


def open_subject(
    path: Path,
    prepare: Callable[[TrainConfig], None],
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_dir: Path | None = None,
) -> Subject:
    """The run in `path`; `prepare` makes its data, in `data_dir` or where it was, if it is not there.

    Raises InputError as `load`.
    """
    run = RunDirectory(path)
    config = run.read_config()
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    inference = load(path, device=device)
    assert inference.step is not None  # an export's config.json was refused above
    prepare(config)
    preset = presets.resolve(config.dataset, config.preset)
    check_same_data(inference, config.data_dir, preset)
    return Subject(run, config, preset, inference, inference.step)
