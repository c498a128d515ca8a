"""The script around nsys: with it, without it."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "profiles" / "nsys.sh"


@pytest.fixture
def run(tmp_path):
    """Runs the script with programs that only print what they were asked, `nsys` among them or not."""

    def call(*arguments: str, nsys: bool) -> subprocess.CompletedProcess:
        for name in ["python", *["nsys"] * nsys]:
            program = tmp_path / name
            program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
            program.chmod(0o755)
        env = {"PATH": f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"}
        return subprocess.run(
            ["sh", SCRIPT, *arguments], env=env, capture_output=True, text=True, check=True, timeout=20
        )

    return call


def test_nsys_records_what_lies_between_start_and_stop(run):
    said = run("--dataset", "cifar10", nsys=True).stdout
    assert said.startswith("nsys profile")
    assert "--capture-range=cudaProfilerApi" in said
    assert said.rstrip().endswith("python -m profiles.trace --nsys --dataset cifar10")


def test_without_nsys_the_same_steps_by_torchs_profiler(run):
    done = run("--dataset", "cifar10", nsys=False)
    assert done.stdout == "python -m profiles.trace --dataset cifar10\n"
    assert "nsys was not found" in done.stderr
