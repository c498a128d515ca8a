"""A bounded training run for a machine that has torch and little else: no command line (tyro), FFCV or nvtx needed.

    python -m profiles.short_run --dataset NAME --run-dir DIR [--data-dir DIR] [--minutes M | --steps N]

The data must have been prepared. It is `ali-fast train --amp` otherwise (on a CPU without --amp).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from rich.console import Console

from ali_fast.config import TrainConfig
from profiles.arguments import Parser, positive


class NoRange(contextlib.ContextDecorator):
    """What `nvtx.annotate` is where nobody can look at its ranges."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


if importlib.util.find_spec("nvtx") is None:
    sys.modules["nvtx"] = ModuleType("nvtx")
    vars(sys.modules["nvtx"])["annotate"] = NoRange


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("short_run", __doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_data_dir()
    parser.add_argument("--run-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=positive)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(arguments)
    on_cuda = torch.cuda.is_available()

    from ali_fast.train import train

    with parser.checked():
        config = TrainConfig(**vars(args), amp=on_cuda, data="auto" if on_cuda else "resident")
        train(config, Console(markup=False, highlight=False, emoji=False, soft_wrap=True))


if __name__ == "__main__":
    main()
