"""A random search for the setting with which ALI covers the mixture best. Every trial is logged, bad ones too.

Trials train together, `at_once` as one program, each as long as --epochs says. They are ranked by how far they fall
short of the goal: all 25 modes near a sample, 95 % high quality, reverse KL (as PacGAN's) at most 0.04. What a search
proposes is to be confirmed by ten fresh seeds at full length: it prints the command.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from typing import Any

from rich.console import Console

from ali_fast.files import write_text
from ali_fast.mixture import results
from ali_fast.mixture.config import SearchConfig
from ali_fast.mixture.nets import PAPER, Sizes
from ali_fast.mixture.protocol import MixtureRun, measured, opened
from ali_fast.mixture.setting import Setting, member_seed

GOAL_NEAR, GOAL_QUALITY, GOAL_KL = 25, 0.95, 0.04


def search(config: SearchConfig, console: Console, sizes: Sizes = PAPER) -> dict[str, Any]:
    """Run or resume the search; returns its results, which are also written after each group of trials."""
    with opened(config, console, sizes) as mixture:
        settings = config.settings()
        trials: list[dict[str, Any]] = []
        seconds = 0.0
        for first in range(0, len(settings), config.at_once):
            group = settings[first : first + config.at_once]
            found, spent = train_group(mixture, group, first)
            trials += found
            seconds += spent
            mixture.results |= {"trials": ranked(trials), "seconds": seconds}
            mixture.write()
        write_text(config.run_dir / "tables.md", results.runs_table("ali", mixture.results["trials"]))
        return mixture.results


def train_group(mixture: MixtureRun, group: tuple[Setting, ...], first: int) -> tuple[list[dict[str, Any]], float]:
    """Trials first, first + 1, ...: their results and the seconds they took together."""
    seeds = tuple(member_seed(mixture.config.seed, "search", first + i) for i in range(len(group)))
    trained = mixture.train("ali", group, folder=f"trials-{first:03d}", seeds=seeds)
    runs = measured(trained)
    return [run | {"run": first + run["run"], "shortfall": shortfall(run)} for run in runs], trained.seconds


def shortfall(run: dict[str, Any]) -> float | None:
    """How far a run is from the goal, 0 if it is there; each part in shares of its goal. None if it diverged."""
    modes = run["modes_2500"]
    if modes is None:
        return None
    kl = modes["reverse_kl_near"]
    return (
        (GOAL_NEAR - modes["near"]) / GOAL_NEAR
        + max(0.0, GOAL_QUALITY - modes["high_quality"]) / GOAL_QUALITY
        + max(0.0, (math.log(GOAL_NEAR) if kl is None else kl) - GOAL_KL)
    )


def ranked(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best first; the diverged last."""
    worst = float("inf")
    return sorted(trials, key=lambda t: (worst if t["shortfall"] is None else t["shortfall"], t["run"]))


def confirmation(config: SearchConfig, best: dict[str, Any]) -> str:
    """The command that tries a trial's setting on ten fresh seeds at the length the goal allows."""
    flags = [
        f"--{name.replace('_', '-')} {value:.4g}"
        for name, value in dataclasses.asdict(Setting(**best["setting"])).items()
    ]
    return " ".join(
        [
            "ali-fast mixture run --methods ali --no-inference --runs 10 --epochs 400",
            f"--batch-size {config.batch_size} --seed {config.seed + 1}",
            *flags,
            *(["--tf32"] if config.tf32 else []),
            f"--data-dir {shlex.quote(str(config.data_dir))} --run-dir {shlex.quote(f'{config.run_dir}-confirmed')}",
        ]
    )
