"""Short runs on the digits: eager, small batches."""

import multiprocessing
import runpy
import sys
from pathlib import Path

import pytest
from forked import context

from ali_fast import checkpoint, cli, metrics

STEPS = 80
TIMES = {"seconds", "images_per_second", "step_ms", "data_wait_share"}  # what may differ between equal runs


def command(data: Path, run: Path, *more: str, steps: int = STEPS) -> list[str]:
    flags = ["--data-dir", data, "--run-dir", run, "--steps", steps, "--batch-size", 16, "--tick-images", 160]
    return ["train", "--dataset", "digits", "--no-compile", "--device", "cpu", *map(str, flags), *more]


def start(arguments: list[str]) -> multiprocessing.process.BaseProcess:
    """`ali-fast ARGUMENTS` in a process of its own."""
    argv, sys.argv = sys.argv, ["ali-fast", *arguments]
    try:
        process = context.Process(target=runpy.run_module, args=("ali_fast",), kwargs={"run_name": "__main__"})
        process.start()
    finally:
        sys.argv = argv
    return process


def final(run: Path) -> dict:
    found = checkpoint.read_newest(run / "checkpoints", warn=pytest.fail)
    assert found is not None
    return found[1]


def ticks(run: Path) -> list[dict]:
    lines = metrics.read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def in_process(arguments, capsys) -> tuple[int, str]:
    """Exit code and stderr."""
    code = cli.main(arguments)
    return code, capsys.readouterr().err
