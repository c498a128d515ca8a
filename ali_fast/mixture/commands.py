"""`ali-fast mixture run | search | figure`: flags and what they do. Heavy imports sit inside `run`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from tyro.conf import OmitArgPrefixes, subcommand

from ali_fast import prepared
from ali_fast.flags import write_json
from ali_fast.mixture.config import MixtureConfig, RunConfig, SearchConfig

C = TypeVar("C", bound=MixtureConfig)


@dataclass(frozen=True, kw_only=True)
class Run(RunConfig):
    """Train many ALIs and GANs at once, count the modes they cover, infer with the best, draw figure 8.

    The same command again resumes. By default the paper's protocol: ten runs each, learning rate, beta1 and init std
    drawn for each run. With those three given, ten seeds of one setting, as in: --learning-rate 1e-4 --beta1 0.8
    --init-std 0.02 --epochs 400 --no-inference
    """

    json: Path | None = None
    """Also write the results to this file."""

    def __post_init__(self) -> None:
        """Checked in `run`: tyro would frame an error that is raised here."""

    def run(self) -> None:
        config = checked(self, RunConfig)
        prepare(config)
        from ali_fast.console import Steady
        from ali_fast.mixture import protocol

        values = protocol.run(config, Steady())
        print(protocol.write_tables(config.run_dir, values))
        drawn = f", {config.run_dir / 'figure8.png'} and .pdf" if config.inference else ""
        print(f"numbers in {config.run_dir / 'results.json'}{drawn}")
        write_json(self.json, values)


@dataclass(frozen=True, kw_only=True)
class Search(SearchConfig):
    """Try random settings of ALI, log every one, propose the best. The same command again resumes."""

    json: Path | None = None
    """Also write the results to this file."""

    def __post_init__(self) -> None:
        """Checked in `run`: tyro would frame an error that is raised here."""

    def run(self) -> None:
        config = checked(self, SearchConfig)
        prepare(config)
        from ali_fast.console import Steady
        from ali_fast.mixture import results, search

        values = search.search(config, Steady())
        print(results.runs_table("ali", values["trials"]))
        if values["trials"][0]["shortfall"] is None:
            print("every trial diverged")
        else:
            print(f"confirm the best with: {search.confirmation(config, values['trials'][0])}")
        write_json(self.json, values)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Draw figure 8 anew from the models that a run kept, as PNG and PDF."""

    run_dir: Path = Path("runs/mixture")
    """Of `ali-fast mixture run`."""
    data_dir: Path = Path("data")
    """Where DATA_DIR/mixture/*.beton are; prepared there if missing."""

    def run(self) -> None:
        if prepared.missing("mixture", self.data_dir, ("valid",)):
            prepared.prepare("mixture", self.data_dir)
        from ali_fast.mixture import protocol

        for path in protocol.draw(self.run_dir, self.data_dir):
            print(f"drawn: {path}")


@dataclass(frozen=True)
class Mixture:
    """The paper's 2-D experiment (section 4.5): 25 Gaussians on a grid, ALI beside a GAN and a VAE."""

    command: OmitArgPrefixes[
        Annotated[Run, subcommand(name="run", prefix_name=False)]
        | Annotated[Search, subcommand(name="search", prefix_name=False)]
        | Annotated[Figure, subcommand(name="figure", prefix_name=False)]
    ]

    def run(self) -> None:
        self.command.run()


def checked(given: MixtureConfig, kind: type[C]) -> C:
    """The configuration without the command's own flags. Raises InputError for what cannot be used."""
    asked = {field.name: getattr(given, field.name) for field in dataclasses.fields(kind)}
    return kind(**asked)


def prepare(config: MixtureConfig) -> None:
    if prepared.missing("mixture", config.data_dir, ("train", "valid")):
        from ali_fast import decide

        decide.device(config.device)  # absent CUDA is to be said first
        prepared.prepare("mixture", config.data_dir)
