"""The models that a run keeps, one member of each, in RUN_DIR/NAME/best.safetensors."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from ali_fast.errors import InputError
from ali_fast.files import whole
from ali_fast.mixture.models import MODELS, Model
from ali_fast.mixture.nets import PAPER, Sizes


def path(directory: Path, name: str) -> Path:
    """Where a run directory keeps its model `name`."""
    return directory / name / "best.safetensors"


def member(model: Model, r: int) -> Model:
    """Member r as a model of one, on the CPU."""
    one = type(model)(1, model.sizes)
    one.load_state_dict({name: tensor[r : r + 1].cpu() for name, tensor in model.state_dict().items()})
    return one


def keep(model: Model, directory: Path, name: str) -> None:
    """Write a model of one, its state dict, for `load`: whole or not at all, over the one before."""
    tensors = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
    with whole(path(directory, name)) as part:
        part.write_bytes(safetensors.torch.save(tensors))  # save_file's are readable by their owner alone


def load(directory: Path, name: str, sizes: Sizes = PAPER) -> Model:
    """The model of one that was kept under `name`. Raises InputError if the file is not there or damaged."""
    model = MODELS[name](1, sizes)
    file = path(directory, name)
    try:
        model.load_state_dict(safetensors.torch.load_file(file))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{file} cannot be read as {name}: {' '.join(str(error).split())[:200]}") from error
    return model
