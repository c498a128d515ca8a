"""Everything that only a GPU can answer, in one command, for a machine without a network.

    python -m profiles.gpu_suite --out DIR [--data-dir DIR] [--only PART ...] [--minutes 9] [--limits 1] [--quick]

Each part runs in a process of its own with its own time limit; what it has found is in DIR before the next begins: at
most eight files, of which summary.md tells it all. What times nothing, tests and compiling ahead, runs side by side
first; the rest has the GPU to itself. Without a GPU the parts that need one are skipped and named. Nothing
need be installed but torch, pytest and what the package imports. Compile caches stay in build/gpu_suite: a second call
is quicker.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ali_fast.files import write_text
from ali_fast.signals import to_stop
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
ENDS = ("svhn", "celeba", "imagenet64")  # first and last row alone
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
    beside: bool = False
    """It times nothing: run beside the others that do not."""


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


def _compile(args: argparse.Namespace) -> list[str]:
    """With the network that `train` will train."""
    trained = _prepared(args.data_dir)
    ends = [*ENDS, *([trained] if trained not in (None, "cifar10", *ENDS) else [])]
    return _module("profiles.compile_ahead", "--preset", "cifar10", "--ends", *ends)


DOCTOR = [sys.executable, "-c", "from ali_fast import doctor; print(doctor.to_text(doctor.examine()))"]

# Of what is timed, the step comes first: the time for all together ends before the parts' own limits add up. A part
# that ends early leaves its time to the rest.
PARTS = (
    Part("doctor", 30, lambda args: DOCTOR),
    Part("compile", 170, _compile, needs_gpu=True, beside=True),
    Part("capture_tests", 170, _tests(*GPU_TESTS), needs_gpu=True, beside=True),
    Part("op_tests", 170, _tests("tests/csrc_triton/gpu"), needs_gpu=True, beside=True),
    Part("step", 220, _step),
    Part("trace", 80, _trace),
    Part("loader", 60, _loader, missing="neither a prepared data set nor FFCV to write one"),
    *(Part(f"step_{name}", 120, _ends(name), needs_gpu=True) for name in ENDS),
    Part("train", 150, _train, missing="no prepared data set under --data-dir"),
    Part("ops", 150, _ops, needs_gpu=True),
)


@dataclass(frozen=True)
class Outcome:
    part: str
    state: str
    """"done", "failed (exit code n)", "stopped after n s", or "skipped: why"."""
    seconds: float
    output: str


@dataclass(frozen=True)
class Begun:
    """A part under way: its output goes into a file, which nobody need read for it to go on."""

    part: Part
    process: subprocess.Popen[bytes]
    output: Path
    start: float
    limit: float


def run(parts: Sequence[Part], args: argparse.Namespace, seconds_left: float) -> list[Outcome]:
    """All side by side, each to its own limit."""
    begun: list[Begun | Outcome] = []
    try:
        begun += (begin(part, args, seconds_left) for part in parts)
        return [one if isinstance(one, Outcome) else end(one) for one in begun]
    except BaseException:  # sessions of their own hear no Ctrl-C
        for one in begun:
            if isinstance(one, Begun) and one.process.poll() is None:
                os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
        raise


def begin(part: Part, args: argparse.Namespace, seconds_left: float) -> Begun | Outcome:
    """An Outcome is why not."""
    if part.needs_gpu and not torch.cuda.is_available():
        return Outcome(part.name, "skipped: needs a GPU", 0.0, "")
    command = part.command(args)
    if command is None:
        return Outcome(part.name, f"skipped: {part.missing}", 0.0, "")
    if seconds_left < LEAST_SECONDS:
        return Outcome(
            part.name, f"skipped: no time left; --only {part.name} with another --out runs it alone", 0.0, ""
        )
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"), "TRITON_CACHE_DIR": str(CACHE / "triton")}
    output = NUMBERS / f"{part.name}.txt"
    with open(output, "wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **caches, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(_path())},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Begun(part, process, output, time.perf_counter(), min(part.seconds * args.limits, seconds_left))


def end(begun: Begun) -> Outcome:
    """Wait for it, or stop it at its limit with all that it started."""
    process = begun.process
    try:
        process.wait(timeout=max(0.0, begun.start + begun.limit - time.perf_counter()))
        state = "done" if process.returncode == 0 else f"failed (exit code {process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        state = f"stopped after {begun.limit:.0f} s"
    seconds = time.perf_counter() - begun.start
    return Outcome(begun.part.name, state, seconds, begun.output.read_text(errors="replace"))


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
    until = time.perf_counter() + args.minutes * 60
    asked = [part for part in PARTS if not args.only or part.name in args.only]
    for beside, group in itertools.groupby(asked, key=lambda part: part.beside):
        for parts in [list(group)] if beside else ([part] for part in group):
            for outcome in run(parts, args, until - time.perf_counter()):
                outcomes.append(outcome)
                print(f"{outcome.part}: {outcome.state}, {outcome.seconds:.0f} s", flush=True)
            keep(args.out)
            write_text(args.out / "results.json", json.dumps(results(head, outcomes), indent=1) + "\n")
            write_text(args.out / "summary.md", summary(head, outcomes))
    print(f"{args.out / 'summary.md'}")
    if any(outcome.state.startswith(("failed", "stopped")) for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    for signum in to_stop():  # its part ends with it
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))
    main()
