"""What a training reads: its images, what is known of them, and those that it is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ali_fast.condition import Condition
from ali_fast.config import TrainConfig
from ali_fast.data.labelled import Labelled, labelled_subset
from ali_fast.data.loader import BetonLoader, first_samples
from ali_fast.data.samples import Samples
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from ali_fast.parallel import World
from ali_fast.players import PLAYERS
from ali_fast.presets import Preset

MOST_ELEMENTS = 2**31 - 1  # of a tensor: the kernels count in int32; D sees each image and a made one
FIXED_IMAGES = 100  # validation images whose reconstruction is followed


@dataclass(frozen=True)
class TrainingData:
    """What a run reads, opened."""

    loader: BetonLoader
    """Of the training images."""
    valid: Samples
    """The first validation images: those that are followed and drawn."""
    labelled: Labelled | None
    """Of a semi-supervised run: the images whose labels it knows, and those its error is followed on."""
    followed: Labelled | None
    condition: Condition | None
    """Of a conditional run."""

    def provenance(self) -> dict[str, Any]:
        """What a run that is resumed must find again, for its checkpoints."""
        manifest = self.loader.manifest
        known: dict[str, Any] = {
            "image_shape": list(manifest.shape),
            "train_images": manifest.count,
            "train_sha256": manifest.sha256[:16],
        }
        if self.labelled is not None:
            known["classes"] = len(manifest.classes)
        if self.condition is not None:
            known["condition"] = self.condition.to_json()
        return known


def open_data(config: TrainConfig, preset: Preset, where: torch.device, world: World) -> TrainingData:
    """Raises InputError as `open_loader`, and where labels or conditions are missing or too few."""
    loader = open_loader(config, preset, world)
    valid = first_samples(beton_path(config.data_dir, config.dataset, preset.valid_split), FIXED_IMAGES)
    labelled = followed = condition = None
    if config.labels is not None:
        labelled, followed = known_labels(config, preset, where), held_out_images(config, preset)
    if PLAYERS[config.objective].conditional:
        condition = Condition.of(loader.manifest, loader.beton.path)
    return TrainingData(loader, valid, labelled, followed, condition)


def open_loader(config: TrainConfig, preset: Preset, world: World) -> BetonLoader:
    """Raises InputError: a file missing or damaged, a batch larger than the set, images that do not fit the preset."""
    assert config.batch_size is not None
    batch_size = world.local_batch(config.batch_size)
    loader = BetonLoader(
        beton_path(config.data_dir, config.dataset, preset.train_split),
        batch_size=batch_size,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
    )
    shape, architecture = loader.manifest.shape, preset.architecture
    size, channels = architecture.image_size, architecture.image_channels
    if len(shape) != 3 or max(shape[:2]) > size or shape[2] != channels:
        raise InputError(
            f"preset {preset.name} takes images of at most {size}x{size}x{channels}; "
            f"those of {loader.beton.path} are {'x'.join(map(str, shape))}"
        )
    most = MOST_ELEMENTS // (architecture.largest_map * (3 if PLAYERS[config.objective].classes else 2))
    if batch_size > most:
        raise InputError(f"--batch-size {config.batch_size}: preset {preset.name} takes at most {most} on one device")
    return loader


def known_labels(config: TrainConfig, preset: Preset, where: torch.device) -> Labelled:
    """The images whose labels a semi-supervised run knows. Raises InputError where labels are missing or too few."""
    assert config.labels is not None
    loader = BetonLoader(beton_path(config.data_dir, config.dataset, preset.labelled_split), batch_size=1)
    return labelled_subset(loader, config.labels, loader.manifest.count - preset.held_out, config.seed, where)


def held_out_images(config: TrainConfig, preset: Preset) -> Labelled:
    """Those that a semi-supervised run's error is followed on: not the test images, which are for `evaluate`."""
    split, rows = preset.choosing
    loader = BetonLoader(beton_path(config.data_dir, config.dataset, split), batch_size=1)
    images, labels, _ = loader.read(*rows.indices(loader.manifest.count)[:2])
    assert labels is not None
    return Labelled(images, labels)
