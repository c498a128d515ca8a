"""`ali_fast.load`: a run directory, or its export, as a tool."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ali_fast import checkpoint, decide, describe, kernels, presets
from ali_fast.condition import Condition
from ali_fast.config import TrainConfig
from ali_fast.data.schema import beton_path, read_manifest
from ali_fast.errors import InputError
from ali_fast.files import whole, write_text
from ali_fast.inference import Inference
from ali_fast.layers import BATCH_NORM_EPS
from ali_fast.model import ALI
from ali_fast.players import PLAYERS, Objective
from ali_fast.run_directory import RunDirectory, is_export

LAYER = ("table", "operation", "kernel", "strides", "condition", "batch_norm", "nonlinearity", "slope", "bias")


@dataclass(frozen=True)
class Saved:
    """A model as a run directory or an export holds it."""

    source: Path
    """Of the weights, for messages."""
    preset: presets.Preset
    objective: Objective
    encoder: str
    classes: int | None
    condition: Condition | None
    image_shape: tuple[int, int, int]
    weights: dict[str, torch.Tensor]
    step: int | None = None
    """Of the checkpoint, and below of its training images: an export knows neither."""
    trained_on: str | None = None

    def check(self) -> None:
        """Raises InputError where the parts do not belong together: files may be edited, or of several runs."""
        players, a = PLAYERS.get(self.objective), self.preset.architecture
        height, width, channels = self.image_shape
        fits = {
            "objective": players is not None,
            "encoder": self.encoder in ("stochastic", "deterministic"),
            "classes": isinstance(self.classes, int) == (players is not None and players.classes),
            "condition": (self.condition is not None) == (players is not None and players.conditional),
            "image_shape": channels == a.image_channels and max(height, width) <= a.image_size,
        }
        if wrong := [f"{name} {getattr(self, name)}" for name, good in fits.items() if not good]:
            raise InputError(
                f"{self.source} is not of a run of preset {self.preset.name}, objective {self.objective}, as its "
                f"config.json has it: {'; '.join(wrong)}; restore what was changed"
            )


def load(run: str | Path, *, device: str = "auto") -> Inference:
    """The model of the newest undamaged checkpoint of `run` (of --ema: the average), or of an export directory.

    device: auto, cpu or cuda. Raises InputError where there is no run, no checkpoint, or another network's.
    """
    where = decide.device(device).device
    saved = _read_export(Path(run)) if is_export(Path(run)) else _read_run(RunDirectory(Path(run)))
    saved.check()
    model = ALI(
        saved.preset.architecture,
        kernels.resolve("auto", decide.device_class(where)),
        saved.objective,
        deterministic=saved.encoder == "deterministic",
        classes=saved.classes,
        y_dim=None if saved.condition is None else len(saved.condition.names),
    )
    checkpoint.check_same_network(saved.weights, model.state_dict(), saved.source)
    model.float().load_state_dict(saved.weights)  # float: whatever torch's default is
    return Inference(model.to(where).eval(), saved.image_shape, saved.condition, saved.step, saved.trained_on)


def check_same_data(inference: Inference, data_dir: Path, preset: presets.Preset) -> None:
    """Raises InputError where the data set of this name has been prepared anew, from other images: what is measured on
    those would say nothing of the run, which may have been trained on the test images."""
    path = beton_path(data_dir, preset.dataset, preset.train_split)
    if inference.trained_on is not None and not read_manifest(path).sha256.startswith(inference.trained_on):
        raise InputError(f"{path} holds other images than the run was trained on: prepare those again")


def newest_checkpoint(directory: RunDirectory) -> tuple[Path, dict[str, Any]]:
    """Raises InputError where there is none."""
    found = checkpoint.read_newest(directory.checkpoints, warn=lambda line: print(line, file=sys.stderr))
    if found is None:
        raise InputError(f"{directory.path} has no checkpoint yet: train first")
    return found


def export(run: str | Path) -> Path:
    """Write the newest checkpoint's networks as RUN/export/NETWORK.safetensors and config.json; returns the directory.

    config.json has what another program needs to build E and G beside the weights' shapes: each layer's kind, batch
    norm's eps, and what the encoder's last channels are. Equal weights give equal bytes: no dates, paths or steps
    inside. Raises InputError as `load`.
    """
    from safetensors.torch import save

    directory = RunDirectory(Path(run))
    config = directory.read_config()
    inference = load(run, device="cpu")
    directory.export.mkdir(exist_ok=True)
    for name, network in inference.model.named_children():
        weights = {key: t.contiguous() for key, t in network.state_dict().items()}
        with whole(directory.export / f"{name}.safetensors") as part:
            part.write_bytes(save(weights))  # not save_file: its files are readable by their owner alone
    values = {
        "dataset": config.dataset,
        "preset": config.preset,
        "objective": config.objective,
        "encoder": config.encoder,
        "classes": inference.model.classes,
        "condition": None if inference.condition is None else inference.condition.to_json(),
        "image_shape": list(inference.image_shape),
        "batch_norm_eps": BATCH_NORM_EPS,
        "encoder_ends_in": ["mu"] if config.encoder == "deterministic" else ["mu", "log_sigma"],
        "layers": _layers(config),
    }
    write_text(directory.export / "config.json", json.dumps(values, indent=2) + "\n")
    return directory.export


def _layers(config: TrainConfig) -> dict[str, list[dict[str, Any]]]:
    """Of each network, as `ali-fast describe --json` has them, but for what the weights' shapes tell."""
    players = PLAYERS[config.objective]
    preset = dataclasses.replace(presets.resolve(config.dataset, config.preset), objective=config.objective)
    described = describe.describe(preset)
    return {
        network: [
            {name: layer[name] for name in LAYER}
            for layer in described[network]["layers"]
            if layer["table"] != "discriminator_z" or players.judged == "pairs"
        ]
        for network in describe.NETWORKS
        if network in players.networks
    }


def _read_run(run: RunDirectory) -> Saved:
    config = run.read_config()
    preset = presets.resolve(config.dataset, config.preset)
    path, state = newest_checkpoint(run)
    conditions = state["conditions"]
    for name, asked in (("objective", config.objective), ("ema", config.ema)):
        if conditions.get(name, asked) != asked:  # older versions did not write it down
            raise InputError(
                f"{path} is of another run than {run.config}: {name} {conditions[name]}, not {asked}; move it there"
            )
    height, width, channels = conditions["image_shape"]
    return Saved(
        path,
        preset,
        config.objective,
        config.encoder,
        conditions.get("classes"),
        Condition.from_json(conditions.get("condition")),
        (height, width, channels),
        state["step"]["model"] | state["step"].get("ema", {}),
        state["step"]["steps"],
        conditions.get("train_sha256"),
    )


def _read_export(path: Path) -> Saved:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
        preset, image_shape = presets.resolve(values["dataset"], values["preset"]), values["image_shape"]
        if not (isinstance(image_shape, list) and [isinstance(n, int) and n > 0 for n in image_shape] == [True] * 3):
            raise ValueError(f"image_shape is {json.dumps(image_shape)}, not height, width and channels")
        objective: Objective = values.get("objective", "ali")
        networks = {name: load_file(path / f"{name}.safetensors") for name in PLAYERS[objective].networks}
        return Saved(
            path,
            preset,
            objective,
            values.get("encoder", "stochastic"),
            values.get("classes"),
            Condition.from_json(values.get("condition")),
            (image_shape[0], image_shape[1], image_shape[2]),
            {f"{name}.{key}": tensor for name, weights in networks.items() for key, tensor in weights.items()},
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"{path} is no whole export: {error}; export the run again") from error
