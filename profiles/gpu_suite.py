"""Everything that only a GPU can answer, in one command, for a machine without a network.

    python -m profiles.gpu_suite --out DIR [--data-dir DIR] [--only PART ...] [--minutes 9] [--limits 1] [--quick]

Each part runs in a process of its own with its own time limit; what it has found is in DIR before the next begins: at
most eight files, of which summary.md tells it all. Without a GPU the parts that need one are skipped and named. Nothing
need be installed but torch, pytest and what the package imports. Compile caches stay in build/gpu_suite: a second call
is quicker.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ali_fast.files import write_text
from profiles import report
from profiles.arguments import Parser

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "gpu_suite"
RUN, NUMBERS = CACHE / "run", CACHE / "numbers"
KEPT_OF_RUN = ("metrics.jsonl", "figures/samples.png", "figures/reconstructions.png")
SHOWN_LINES = 60  # of a part's output, in the summary
LARGE = ("trace.json.gz", "step.png", "ops.png", *(Path(name).name for name in KEPT_OF_RUN))  # what parts leave in DIR
MOST_BYTES = 15 << 20  # of one of these
START_SECONDS = 130  # of the step part: a row begun by then may still compile, and all are timed, within its limit
LEAST_SECONDS = 10.0  # with less left no further part is begun
GPU_TESTS = (  # in this order: quick ones that await a GPU, then what passed on one
    "tests/ali_fast/mixture/test_step.py",
    "tests/ali_fast/test_weight_gradients.py",
    "tests/ali_fast/test_im2col.py",
    "tests/ali_fast/test_few_channels.py",
    "tests/ali_fast/data/test_device.py",
    "tests/ali_fast/test_capture.py",
)


@dataclass(frozen=True)
class Part:
    """One process. `command` takes the arguments, and returns None if `missing` was not given.

    It writes its numbers, if any, to NUMBERS/NAME.json.
    """

    name: str
    seconds: float
    command: Callable[[argparse.Namespace], list[str] | None]
    needs_gpu: bool = False
    missing: str = ""


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def _numbers(part: str) -> tuple[str, Path]:
    return "--json", NUMBERS / f"{part}.json"


def _tests(*paths: str) -> Callable[[argparse.Namespace], list[str]]:
    flags = ("-m", "gpu", "-rfE", "--durations=5", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    return lambda args: _module("pytest", *flags, *paths)


def _step(args: argparse.Namespace) -> list[str]:
    quick = ("--rounds", 3, "--burst-seconds", 0.02, "--batch-size", 4, "--only", "ends") if args.quick else ()
    dataset = "digits" if args.quick else "cifar10"
    written = (*_numbers("step"), "--chart", args.out / "step.png")
    start = ("--start-seconds", START_SECONDS * args.limits)
    return _module("profiles.bench_step", "--dataset", dataset, *start, *written, *quick)


def _ends(dataset: str) -> Callable[[argparse.Namespace], list[str]]:
    def command(args: argparse.Namespace) -> list[str]:
        ends = ("--only", "ends", "--rounds", 5, *_numbers(f"step_{dataset}"))
        return _module("profiles.bench_step", "--dataset", dataset, *ends)

    return command


def _ops(args: argparse.Namespace) -> list[str]:
    return _module("profiles.bench_ops", "--preset", "cifar10", *_numbers("ops"), "--chart", args.out / "ops.png")


def _prepared(data_dir: Path) -> str | None:
    """The most interesting data set that is there."""
    for name in ("cifar10", "svhn", "celeba", "imagenet64", "fashion-mnist", "digits"):
        if list((data_dir / name).glob("*.beton")):
            return name
    return None


def _loader(args: argparse.Namespace) -> list[str] | None:
    quick = ("--images", 500, "--rounds", 2) if args.quick else ()
    name = _prepared(args.data_dir)
    if name is None and importlib.util.find_spec("ffcv") is None:
        return None
    data = () if name is None else ("--dataset", name, "--data-dir", args.data_dir)
    return _module("profiles.bench_loader", *_numbers("loader"), *data, *quick)


def _train(args: argparse.Namespace) -> list[str] | None:
    name = _prepared(args.data_dir)
    if name is None:
        return None
    length = ("--steps", 20, "--no-compile") if args.quick else ("--minutes", 0.7)  # from the first step on
    return _module("profiles.short_run", "--dataset", name, "--data-dir", args.data_dir, "--run-dir", RUN, *length)


def _trace(args: argparse.Namespace) -> list[str]:
    quick = ("--batch-size", 4, "--steps", 3) if args.quick else ()
    written = (*_numbers("trace"), "--trace", args.out / "trace.json.gz")
    return _module("profiles.trace", "--dataset", "digits" if args.quick else "cifar10", *written, *quick)


DOCTOR = [sys.executable, "-c", "from ali_fast import doctor; print(doctor.to_text(doctor.examine()))"]

# What measures the step, and what no GPU has run yet, comes first: the time for all together ends before the parts' own
# limits add up. Those up to `train` are within the nine minutes; a part that ends early leaves its time to the rest.
PARTS = (
    Part("doctor", 30, lambda args: DOCTOR),
    Part("step", 220, _step),
    Part("loader", 60, _loader, missing="neither a prepared data set nor FFCV to write one"),
    Part("trace", 80, _trace),
    Part("train", 150, _train, missing="no prepared data set under --data-dir"),
    Part("capture_tests", 150, _tests(*GPU_TESTS), needs_gpu=True),
    Part("ops", 150, _ops, needs_gpu=True),
    Part("op_tests", 180, _tests("tests/csrc_triton/gpu"), needs_gpu=True),
    Part("step_svhn", 90, _ends("svhn"), needs_gpu=True),
    Part("step_celeba", 120, _ends("celeba"), needs_gpu=True),
    Part("step_imagenet64", 120, _ends("imagenet64"), needs_gpu=True),
)


@dataclass(frozen=True)
class Outcome:
    part: str
    state: str
    """"done", "failed (exit code n)", "stopped after n s", or "skipped: why"."""
    seconds: float
    output: str


def run(part: Part, args: argparse.Namespace, seconds_left: float) -> Outcome:
    if part.needs_gpu and not torch.cuda.is_available():
        return Outcome(part.name, "skipped: needs a GPU", 0.0, "")
    command = part.command(args)
    if command is None:
        return Outcome(part.name, f"skipped: {part.missing}", 0.0, "")
    if seconds_left < LEAST_SECONDS:
        return Outcome(
            part.name, f"skipped: no time left; --only {part.name} with another --out runs it alone", 0.0, ""
        )
    limit = min(part.seconds * args.limits, seconds_left)
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"), "TRITON_CACHE_DIR": str(CACHE / "triton")}
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **caches, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(_path())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=limit)
        state = "done" if process.returncode == 0 else f"failed (exit code {process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        state = f"stopped after {limit:.0f} s"
    except BaseException:  # a session of its own hears no Ctrl-C
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Outcome(part.name, state, time.perf_counter() - start, output)


def _path() -> list[str]:
    """The checkout first: nothing of it need be installed."""
    return [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def results(head: Mapping[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Every part's outcome and numbers."""
    parts = {}
    for o in outcomes:
        written = NUMBERS / f"{o.part}.json"
        numbers = json.loads(written.read_text()) if written.exists() else {}
        parts[o.part] = {"outcome": o.state, "seconds": round(o.seconds, 1), **numbers}
    return {**head, "parts": parts}


def summary(head: Mapping[str, Any], outcomes: list[Outcome]) -> str:
    """Markdown: what ran on what, one line a part, then the end of each part's output."""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items() if version)
    lines = ["# GPU suite", "", head["device"], "", versions, "", f"    {head['command']}", ""]
    lines += ["| part | outcome | s |", "| --- | --- | ---: |"]
    lines += [f"| {o.part} | {o.state} | {o.seconds:.0f} |" for o in outcomes]
    for outcome in outcomes:
        if outcome.output.strip():
            shown = outcome.output.strip().splitlines()[-SHOWN_LINES:]
            lines += ["", f"## {outcome.part}", "", *_as_markdown(shown)]
    return "\n".join(lines) + "\n"


def _as_markdown(lines: list[str]) -> list[str]:
    """Tables stay tables; the rest is quoted as it was printed."""
    out: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        is_row = line.startswith("|")
        if is_row != before.startswith("|"):
            out.append("")
        out.append(line if is_row else f"    {line}")
    return out


def keep(out: Path) -> None:
    """What the training run drew and wrote, beside the rest; nothing too large to be carried away."""
    for name in KEPT_OF_RUN:
        if (RUN / name).exists():
            shutil.copy(RUN / name, out)
    for path in (out / name for name in LARGE):
        if path.exists() and path.stat().st_size > MOST_BYTES:
            path.unlink()
            print(f"{path.name} was larger than {MOST_BYTES >> 20} MB and is not kept")


def main(arguments: list[str] | None = None) -> None:
    names = [part.name for part in PARTS]
    parser = Parser("gpu_suite", __doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_data_dir()
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together (default 9)")
    parser.add_argument("--limits", type=float, default=1.0, help="times each part's own limit: for a slow machine")
    parser.add_argument("--quick", action="store_true", help="small everything: does it run?")
    args = parser.parse_args(arguments)
    args.out, args.data_dir = args.out.absolute(), args.data_dir.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    for before in (RUN, NUMBERS):
        shutil.rmtree(before, ignore_errors=True)
    NUMBERS.mkdir(parents=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head, outcomes = report.header(device), []
    report.print_header(head)
    end = time.perf_counter() + args.minutes * 60
    for part in PARTS:
        if args.only and part.name not in args.only:
            continue
        outcome = run(part, args, end - time.perf_counter())
        outcomes.append(outcome)
        print(f"{outcome.part}: {outcome.state}, {outcome.seconds:.0f} s", flush=True)
        keep(args.out)
        write_text(args.out / "results.json", json.dumps(results(head, outcomes), indent=1) + "\n")
        write_text(args.out / "summary.md", summary(head, outcomes))
    print(f"{args.out / 'summary.md'}")
    if any(outcome.state.startswith(("failed", "stopped")) for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))  # its part ends with it
    main()
