"""What `ali-fast mixture` was asked to do: frozen dataclasses from which the flags are made. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ali_fast.errors import InputError
from ali_fast.mixture.setting import RECOMMENDED, Setting, draw_protocol, draw_search
from ali_fast.seeds import check_seed

METHODS = ("ali", "gan")
FREE_ON_RESUME = frozenset({"data_dir", "run_dir", "device", "compile", "methods", "inference"})
"""Fields that may differ when a run is resumed: where things are, what computes them, and which models are wanted."""


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What every training on the mixture has."""

    run_dir: Path
    """Where the run goes; the same command again resumes it."""
    data_dir: Path = Path("data")
    """Where DATA_DIR/mixture/*.beton are; prepared there if missing."""
    epochs: int = 200
    """Passes over the 100,000 points."""
    batch_size: int = 100
    """Points per update."""
    seed: int = 0
    """Of everything: settings, weights, noise and order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA if there is any."""
    compile: bool = True
    """Compile the step with torch.compile."""
    tf32: bool = False
    """On CUDA, multiply in TF32, with 10 bits of mantissa: ten ALIs on an H100 took two thirds of the time."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):  # batch norm needs two points
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class RunConfig(MixtureConfig):
    """The paper's protocol; or, with a learning rate, beta1 and init std given, or --recommended, many seeds of one
    setting."""

    run_dir: Path = Path("runs/mixture")
    """Where the run goes; the same command again resumes it."""
    runs: int = 10
    """Models of each method, trained as one program."""
    methods: tuple[str, ...] = METHODS
    """Which: ali, gan."""
    learning_rate: float | None = None
    """Of both Adams; by default drawn for each run."""
    beta1: float | None = None
    """Of both Adams; by default drawn for each run."""
    init_std: float | None = None
    """Of the initial weights; by default drawn for each run."""
    discriminator_rate: float | None = None
    """The discriminator's learning rate as a multiple of the generator's; by default 1."""
    decay_from: float | None = None
    """Share of the training after which the learning rates fall linearly to 0; by default they stay."""
    instance_noise: float | None = None
    """Standard deviation, at the start, of noise on the points D sees, down to 0 at noise-until; by default 0."""
    noise_until: float | None = None
    """Share of the training after which there is no such noise; by default 1."""
    gradient_penalty: float | None = None
    """Weight of half the mean squared gradient of D's logit at the pairs of both kinds, in D's loss; by default 0."""
    recommended: bool = False
    """What is not given is the setting that the search found, not the paper's protocol: tried at 50 epochs."""
    inference: bool = True
    """Also train the best GAN's two kinds of inference and the VAE, and draw figure 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runs < 1:
            raise InputError(f"--runs {self.runs}: must be at least 1")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise InputError(f"--methods {' '.join(unknown)}: there are {' and '.join(METHODS)}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"--methods {' '.join(self.methods)}: name each method once, and at least one")
        self.settings()

    def settings(self) -> tuple[Setting, ...]:
        """One for each run, the same for every method: what was not given is drawn."""
        given = {
            name: getattr(self, name)
            for name in (field.name for field in dataclasses.fields(Setting))
            if getattr(self, name) is not None
        }
        base = [RECOMMENDED if self.recommended else draw_protocol(self.seed, i) for i in range(self.runs)]
        return tuple(dataclasses.replace(setting, **given) for setting in base)


@dataclass(frozen=True, kw_only=True)
class SearchConfig(MixtureConfig):
    """A random search, every trial logged, for the setting with which ALI covers the mixture best."""

    run_dir: Path = Path("runs/mixture-search")
    """Where the search goes; the same command again resumes it."""
    epochs: int = 100
    """Passes over the 100,000 points for each trial."""
    trials: int = 20
    """Settings to try."""
    at_once: int = 10
    """How many train as one program."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trials", "at_once"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")

    def settings(self) -> tuple[Setting, ...]:
        return tuple(draw_search(self.seed, i) for i in range(self.trials))


def to_json(config: MixtureConfig) -> str:
    values = {"command": type(config).__name__.removesuffix("Config").lower()} | dataclasses.asdict(config)
    return json.dumps(values, default=str, indent=2) + "\n"


def differences(old: dict[str, Any], new: MixtureConfig) -> list[str]:
    """Fields in which a run's config.json, as parsed, and a configuration may not differ, as `name: old -> new`."""
    asked = json.loads(to_json(new))
    return [
        f"{name}: {old.get(name)} -> {asked.get(name)}"
        for name in {**old, **asked}
        if name not in FREE_ON_RESUME and old.get(name) != asked.get(name)
    ]
