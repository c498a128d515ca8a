"""The data that a subcommand needs: there and whole, or prepared for it. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ali_fast import presets
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError


def prepare_if_missing(resolved: TrainConfig) -> None:
    """The data of a training: there and whole, or prepared. Raises InputError as `data_missing`."""
    if data_missing(resolved):
        prepare(resolved.dataset, resolved.data_dir)


def data_missing(resolved: TrainConfig, *, verify: bool = False) -> bool:
    """Whether the data of a training have to be prepared. Raises InputError as `missing`, and for a folder's of another
    preset."""
    from ali_fast.data import schema

    preset = presets.resolve(resolved.dataset, resolved.preset)
    splits = [preset.train_split, preset.valid_split]
    with schema.knowing(preset=preset.name):
        absent = missing(resolved.dataset, resolved.data_dir, splits, verify=verify)
        if resolved.dataset == "folder":
            path = schema.beton_path(resolved.data_dir, "folder", preset.train_split)
            shape, size = schema.read_manifest(path).shape, preset.architecture.image_size
            if shape != (size, size, preset.architecture.image_channels):
                raise InputError(
                    f"{path} holds images of {'x'.join(map(str, shape))}, preset {preset.name} takes "
                    f"{size}x{size}x{preset.architecture.image_channels}; make it for this preset with: "
                    f"{schema.prepare_command(path, '--force')}"
                )
    return absent


def missing(dataset: str, data_dir: Path, splits: Sequence[str], *, verify: bool = False) -> bool:
    """Whether one of the splits is not there. Without torch.

    verify: read every byte. Raises InputError for a damaged one, which is never rebuilt unasked, and where a folder is
    missing: where its images are is not known here.
    """
    from ali_fast.data.beton import Beton
    from ali_fast.data.schema import NotPreparedError, beton_path

    try:
        for split in splits:
            beton = Beton(beton_path(data_dir, dataset, split))
            if verify:
                beton.verify()
    except NotPreparedError:
        if dataset == "folder":
            raise
        return True
    return False


def prepare(dataset: str, data_dir: Path) -> None:
    import data_prep

    print(f"preparing {dataset} in {data_dir / dataset}", flush=True)
    data_prep.prepare(dataset, data_dir=data_dir)
