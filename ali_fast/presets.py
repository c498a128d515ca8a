"""One row per experiment: the paper's as the paper has them, ours under names of their own. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ali_fast import networks
from ali_fast.arch import Architecture
from ali_fast.errors import InputError
from ali_fast.players import Objective

HELD_OUT = 10_000  # images that settings are chosen on (the paper's number)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What an experiment fixes besides its data."""

    name: str
    dataset: str
    architecture: Architecture
    batch_size: int
    epochs: int
    objective: Objective = "ali"
    """The game that it is for; its networks can play others, too."""
    train_split: str = "train"
    valid_split: str = "valid"
    test_split: str = "test"
    labelled_split: str = "train"
    """Where known labels are drawn from: the training images, but for SVHN, whose training leaves `train` out."""
    held_out: int = 0
    """Of that split, the last so many images choose settings and give no labels; 0: those of `valid` do."""
    learning_rate: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    """The paper's table prints 10^-3, which is one minus this: Blocks' older convention."""
    from_paper: bool = False

    @property
    def choosing(self) -> tuple[str, slice]:
        """The images that settings are chosen on: of which split, which."""
        if self.held_out:
            return self.labelled_split, slice(-self.held_out, None)
        return self.valid_split, slice(HELD_OUT)


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="cifar10",
        dataset="cifar10",
        architecture=networks.CIFAR10,
        batch_size=100,
        epochs=6475,
        from_paper=True,
    ),
    Preset(
        name="svhn",
        dataset="svhn",
        architecture=networks.SVHN,
        batch_size=100,
        epochs=100,
        train_split="extra",
        valid_split="train",
        held_out=HELD_OUT,
        from_paper=True,
    ),
    Preset(
        name="celeba",
        dataset="celeba",
        architecture=networks.CELEBA,
        batch_size=100,
        epochs=123,
        from_paper=True,
    ),
    Preset(
        name="celeba-conditional",
        dataset="celeba",
        architecture=networks.CELEBA,
        batch_size=128,
        epochs=123,
        objective="conditional",
        from_paper=True,
    ),
    Preset(
        name="imagenet64",
        dataset="imagenet64",
        architecture=networks.IMAGENET64,
        batch_size=128,
        epochs=125,
        test_split="valid",
        from_paper=True,
    ),
    Preset(
        name="cifar10-code",
        dataset="cifar10",
        architecture=networks.CIFAR10_CODE,
        batch_size=100,
        epochs=6475,
    ),
    Preset(
        name="fashion-mnist",
        dataset="fashion-mnist",
        architecture=networks.FASHION_MNIST,
        batch_size=100,
        epochs=100,
    ),
    Preset(
        name="fashion-mnist-small",
        dataset="fashion-mnist",
        architecture=networks.FASHION_MNIST_SMALL,
        batch_size=100,
        epochs=60,
        learning_rate=4e-4,
    ),
    Preset(
        name="digits",
        dataset="digits",
        architecture=networks.DIGITS,
        batch_size=100,
        epochs=225,
        learning_rate=2e-4,
    ),
)

TRAINABLE = tuple(dict.fromkeys([preset.dataset for preset in PRESETS] + ["folder"]))


def resolve(dataset: str, name: str | None = None, objective: Objective = "ali") -> Preset:
    """The preset called `name`, or the data set's own: for this objective if it has one, else the first of its rows.

    `folder` names its preset: its images take that preset's shape, its splits are its own.

    Raises InputError for an unknown data set or preset, or one of another data set.
    """
    if dataset not in TRAINABLE:
        more = "; the 2-D experiment is: ali-fast mixture run" if dataset == "mixture" else ""
        raise InputError(f"unknown data set {dataset!r}: one of {', '.join(TRAINABLE)}{more}")
    if name is None:
        if dataset == "folder":
            raise InputError(f"--dataset folder needs --preset, one of {', '.join(p.name for p in PRESETS)}")
        own = [preset for preset in PRESETS if preset.dataset == dataset]
        return next((preset for preset in own if preset.objective == objective), own[0])
    fitting = [p for p in PRESETS if dataset in ("folder", p.dataset)]
    for preset in fitting:
        if preset.name == name:
            return _of_a_folder(preset) if dataset == "folder" else preset
    raise InputError(f"no preset {name!r} for {dataset}: one of {', '.join(p.name for p in fitting)}")


def _of_a_folder(preset: Preset) -> Preset:
    return replace(preset, dataset="folder", train_split="train", valid_split="valid", test_split="test", held_out=0)
