"""The runs of section 4.5, one after another, each resumable, each leaving what the next and the figure need.

A run directory: config.json, environment.json, a folder a model (metrics.jsonl, checkpoints/, best.safetensors),
results.json, tables.md, figure8.png and figure8.pdf. The same command again goes on where it was stopped; what is
finished is only measured anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ali_fast import decide, environment
from ali_fast.config import fields_of
from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from ali_fast.files import write_text
from ali_fast.mixture import config as configuration
from ali_fast.mixture import figure8, kept, measures, results, sampling, training
from ali_fast.mixture.config import MixtureConfig, RunConfig
from ali_fast.mixture.nets import PAPER, Sizes
from ali_fast.mixture.setting import Setting, member_seed
from ali_fast.mixture.training import Job, Place, Trained
from ali_fast.run_directory import MIXTURE, RunDirectory
from ali_fast.signals import Signals

LETTERS = {"ali": "a", "inverse": "b", "post-hoc": "c", "vae": "d"}
"""Figure 8's columns, by the paper's letters."""
VAE_SETTING = Setting(learning_rate=1e-3, beta1=0.9)
"""The paper has none. The usual Adam: nothing adversarial here asks for less momentum."""


class MixtureRun:
    """A run directory in use: data, place and results so far."""

    def __init__(self, config: MixtureConfig, console: Console, signals: Signals, sizes: Sizes = PAPER):
        self.config, self.console, self.signals, self.sizes = config, console, signals, sizes
        self.directory = config.run_dir
        self.device = decide.device(config.device).device
        self.compiles, why = decide.compiles(config.compile, moves_what_it_reads=self.device.type == "cpu")
        if config.compile and not self.compiles:
            console.print(f"warning: {why}: training eagerly, which is slower")
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        self.points = read_points(config.data_dir, "train")[0].to(self.device)
        self.results: dict[str, Any] = {
            "config": json.loads(configuration.to_json(config)),
            "environment": environment.collect(),
            "device": str(self.device),
            "methods": {},
            "columns": {},
        }

    def train(
        self,
        model: str,
        settings: tuple[Setting, ...],
        *,
        folder: str | None = None,
        seeds: tuple[int, ...] | None = None,
        decoder: dict[str, Tensor] | None = None,
    ) -> Trained:
        """A member for each setting; by default in a folder of the model's name, from seeds of its name."""
        job = Job(
            model,
            settings,
            self.seeds(model, len(settings)) if seeds is None else seeds,
            self.config.epochs,
            self.config.batch_size,
            decoder,
            self.sizes,
        )
        place = Place(self.directory / (folder or model), self.console, self.signals, self.compiles)
        return training.train(job, self.points, place)

    def seeds(self, model: str, members: int) -> tuple[int, ...]:
        return tuple(member_seed(self.config.seed, model, i) for i in range(members))

    def write(self) -> None:
        write_text(self.directory / "results.json", json.dumps(self.results, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def opened(config: MixtureConfig, console: Console, sizes: Sizes = PAPER) -> Iterator[MixtureRun]:
    """The run of `config` in its directory, locked, signals heeded.

    Raises InputError if another run is there, or its config.json is damaged. Until there is a checkpoint there is
    nothing to resume, and a mistyped flag binds nobody.
    """
    run = RunDirectory(config.run_dir)
    with run.locked(), Signals() as signals:
        run.check(MIXTURE, lambda: configuration.differences(run.parsed(fields_of), config))
        mixture = MixtureRun(config, console, signals, sizes)
        write_text(run.config, configuration.to_json(config))
        write_text(run.environment, json.dumps(mixture.results["environment"], indent=2) + "\n")
        yield mixture


def run(config: RunConfig, console: Console, sizes: Sizes = PAPER) -> dict[str, Any]:
    """The protocol; returns the results, which are also written. Raises Interrupted, everything saved."""
    with opened(config, console, sizes) as mixture:
        for method in config.methods:
            train_method(mixture, method, config.settings())
        if config.inference:
            train_inference_models(mixture)
            draw(config.run_dir, config.data_dir, sizes)
        write_tables(config.run_dir, mixture.results)
        return mixture.results


def train_method(mixture: MixtureRun, method: str, settings: tuple[Setting, ...]) -> None:
    """Train ALI or GAN, a run for each setting, all at once; measure all, keep the best, write results.json."""
    trained = mixture.train(method, settings)
    runs = measured(trained)
    chosen = results.best(runs)
    if chosen is not None:
        kept.keep(kept.member(trained.model, chosen), mixture.directory, method)
    mixture.results["methods"][method] = {
        "runs": runs,
        "summary": results.summary(runs),
        "summary_2500": results.summary(runs, "modes_2500"),
        "best": chosen,
        "seconds": trained.seconds,
        "steps": trained.steps,
    }
    mixture.write()


def measured(trained: Trained) -> list[dict[str, Any]]:
    """Each member's entry in results.json, measured on samples from its own seed: see `results.of_runs`."""
    job = trained.job
    modes, modes_2500 = (
        sampling.covered(trained.model, job.seeds, count) for count in (sampling.SAMPLES, sampling.PACGAN_SAMPLES)
    )
    return results.of_runs(job.settings, job.seeds, trained.first_bad, modes, modes_2500)


def train_inference_models(mixture: MixtureRun) -> None:
    """The best GAN's two kinds of inference, at its own setting, and the VAE; then each column is measured."""
    methods = mixture.results["methods"]
    if "gan" in methods and (chosen := methods["gan"]["best"]) is not None:
        gan = kept.load(mixture.directory, "gan", mixture.sizes)
        setting = Setting(**methods["gan"]["runs"][chosen]["setting"])
        for model in ("inverse", "post-hoc"):
            train_column(mixture, model, setting, gan.decoder.state_dict())
    train_column(mixture, "vae", VAE_SETTING)
    if "ali" in methods and methods["ali"]["best"] is not None:
        mixture.results["columns"] = {"ali": measure_column(mixture, "ali")} | mixture.results["columns"]
    mixture.write()


def train_column(mixture: MixtureRun, model: str, setting: Setting, decoder: dict[str, Tensor] | None = None) -> None:
    """Train one of figure 8's columns, keep it unless it diverged, measure it, write results.json.

    model: inverse, post-hoc or vae; decoder: the frozen one of the first two, as a state dict.
    """
    trained = mixture.train(model, (setting,), decoder=decoder)
    if trained.first_bad[0] is None:
        kept.keep(trained.model, mixture.directory, model)
        found = measure_column(mixture, model)
    else:
        found = {"modes": None, "inference": None}
    status = results.status(trained.first_bad[0], measured=found["modes"] is not None)
    found |= {"setting": dataclasses.asdict(setting), "status": status, "seconds": trained.seconds}
    mixture.results["columns"][model] = found
    mixture.write()


def measure_column(mixture: MixtureRun, name: str) -> dict[str, Any]:
    """Coverage of the kept model's samples, and its inference on the held-out points; null where not all is finite."""
    points, _ = read_points(mixture.config.data_dir, "valid")
    made = sampling.encode_and_decode(kept.load(mixture.directory, name, mixture.sizes), points)
    if not all(bool(tensor.isfinite().all()) for tensor in made.values()):
        return {"modes": None, "inference": None}
    inference = measures.reconstruction(points, made["reconstructions"])._asdict() | {
        "mmd2_codes": measures.mmd2(made["codes"], made["prior"]),
        "mmd2_points": measures.mmd2(made["reconstructions"], points),
        "points": len(points),
    }
    return {"modes": results.finite(measures.modes(made["samples"])._asdict()), "inference": inference}


def draw(directory: Path, data_dir: Path, sizes: Sizes = PAPER) -> list[Path]:
    """Figure 8 from the models kept in a run directory. Raises InputError where there is none."""
    points, components = read_points(data_dir, "valid")
    there = [name for name in LETTERS if kept.path(directory, name).exists()]
    if not there:
        raise InputError(
            f"{directory} has no model that figure 8 shows: ali-fast mixture run makes them, without --no-inference"
        )
    columns = []
    for name in there:
        made = sampling.encode_and_decode(kept.load(directory, name, sizes), points)
        arrays = {key: tensor.numpy() for key, tensor in made.items()}
        columns.append(figure8.Column(f"({LETTERS[name]}) {results.NAMES[name]}", **arrays))
    paths = [directory / f"figure8.{kind}" for kind in ("png", "pdf")]
    figure8.draw(columns, points.numpy(), components.numpy(), paths)
    return paths


def write_tables(directory: Path, values: dict[str, Any]) -> str:
    parts = [results.coverage_table(values["methods"])] if values["methods"] else []
    if values["columns"]:
        parts.append(results.inference_table(values["columns"]))
    parts += [results.runs_table(method, found["runs"]) for method, found in values["methods"].items()]
    text = "\n".join(parts)
    write_text(directory / "tables.md", text)
    return text


def read_points(data_dir: Path, split: str) -> tuple[Tensor, Tensor]:
    """float32 [N, 2] and components int64 [N] of a prepared split."""
    batch = BetonLoader(beton_path(data_dir, "mixture", split), batch_size=1).read_all()
    assert batch.labels is not None
    return batch.images.float(), batch.labels
