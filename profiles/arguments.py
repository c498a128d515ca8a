"""Arguments that several profiles take. Parsing them imports no torch: `pretend` comes before it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ali_fast import presets
from ali_fast.errors import InputError
from ali_fast.presets import Preset

if TYPE_CHECKING:
    import torch

PAPERS = ("cifar10", "svhn", "celeba", "imagenet64")


def positive(text: str) -> int:
    """Of a flag that counts something."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


class Chosen(NamedTuple):
    """The step that was asked for."""

    preset: Preset
    batch_size: int
    device: torch.device


class Parser(argparse.ArgumentParser):
    """Of `python -m profiles.NAME`, described by the first line of that module's docstring."""

    def __init__(self, name: str, docstring: str | None):
        super().__init__(prog=f"python -m profiles.{name}", description=(docstring or "").split("\n")[0])

    def add_device(self) -> None:
        self.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    def add_data_dir(self) -> None:
        self.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="with prepared data sets")

    def add_outputs(self, json: str = "write the numbers here too", chart: str | None = "write bars as PNG") -> None:
        """--json and, unless its help is None, --chart."""
        self.add_argument("--json", type=Path, metavar="PATH", help=json)
        if chart:
            self.add_argument("--chart", type=Path, metavar="PATH", help=chart)

    def add_step(self) -> None:
        """What `chosen` reads."""
        self.add_argument("--dataset", required=True)
        self.add_argument("--preset", help="default: the data set's own")
        self.add_argument("--batch-size", type=positive, metavar="IMAGES", help="default: the preset's")
        self.add_device()

    def add_networks(self) -> None:
        """What `networks` reads."""
        self.add_argument("--preset", nargs="+", default=PAPERS, help="default: the paper's four")

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """An InputError inside is a wrong argument: its message, and exit code 2."""
        try:
            yield
        except InputError as error:
            self.error(str(error))

    def check(self, flag: str, given: Collection[str], accepted: Collection[str]) -> None:
        """Every given word is accepted, or the command ends with exit code 2 and both in its message."""
        if unknown := set(given) - set(accepted):
            self.error(f"{flag} {' '.join(sorted(unknown))}: of {', '.join(accepted)}")

    def chosen(self, args: argparse.Namespace) -> Chosen:
        from ali_fast import decide

        with self.checked():
            preset = presets.resolve(args.dataset, args.preset)
            return Chosen(preset, args.batch_size or preset.batch_size, decide.device(args.device).device)

    def networks(self, args: argparse.Namespace) -> list[Preset]:
        by_name = {preset.name: preset for preset in presets.PRESETS}
        self.check("--preset", args.preset, by_name)
        return [by_name[name] for name in args.preset]
