"""Where a step's time goes: the kernels that take most of it, and the gaps in which the GPU waits.

    python -m profiles.trace --dataset cifar10 [--preset P] [--steps N] [--json PATH] [--chart PATH] [--trace PATH]
    profiles/nsys.sh --dataset cifar10                     the same steps under nsys, with NVTX ranges

The step is the one that `train --amp` takes, on synthetic resident images, warm before anything is recorded. Kernels on
several streams overlap: their shares of the busy time add up to more than one. On a CPU the table is of operators, and
there are no gaps. --trace writes what chrome://tracing and Perfetto open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from ali_fast import presets, process
from ali_fast.errors import InputError
from profiles import clock, report
from profiles.arguments import Parser, positive
from profiles.waterfall import Row, rows, start

SHOWN, DRAWN = 25, 15  # kernels, and gaps


class Span(NamedTuple):
    """One thing that the device did, in microseconds."""

    name: str
    start: float
    end: float


def gpu_spans(events: Sequence[Any]) -> list[Span]:
    """Kernels, copies and memory sets, by start. Raises InputError if there are none."""
    on_gpu = (e for e in events if e.device_type == torch.autograd.DeviceType.CUDA)
    spans = sorted((Span(e.name, e.time_range.start, e.time_range.end) for e in on_gpu), key=lambda s: s.start)
    if not spans:
        raise InputError(
            "torch's profiler recorded nothing on the GPU: run it without another profiler beside it, where CUPTI is "
            "there and may be used; or profiles/nsys.sh, where there is nsys"
        )
    return spans


class Gaps(NamedTuple):
    """Busy and idle time between the first span and the last, in microseconds; the idle time by what it lay between."""

    busy: float
    wall: float
    between: dict[tuple[str, str], float]


def gaps(spans: Sequence[Span]) -> Gaps:
    """Of spans sorted by start; they may overlap."""
    between: dict[tuple[str, str], float] = defaultdict(float)
    last = spans[0]
    idle = 0.0
    for span in spans[1:]:
        if span.start > last.end:
            idle += span.start - last.end
            between[last.name, span.name] += span.start - last.end
        if span.end > last.end:
            last = span
    wall = last.end - spans[0].start
    return Gaps(wall - idle, wall, between)


def by_name(spans: Sequence[Span]) -> list[tuple[str, int, float]]:
    """(name, how often, microseconds in all), the longest first."""
    totals: dict[str, list[float]] = defaultdict(list)
    for span in spans:
        totals[span.name].append(span.end - span.start)
    return sorted(((name, len(t), sum(t)) for name, t in totals.items()), key=lambda row: -row[2])


def record(call: Callable[[], None], steps: int, device: torch.device) -> profile:
    """torch's profiler over `steps` calls."""
    activities = [ProfilerActivity.CUDA] if device.type == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            call()
        clock.synchronize(device)
    return recorded


def under_nsys(call: Callable[[], None], steps: int, device: torch.device) -> None:
    """The calls that nsys records: `--capture-range=cudaProfilerApi`."""
    import nvtx  # not everywhere where there is a GPU

    torch.cuda.profiler.start()
    for _ in range(steps):
        with nvtx.annotate("step"):
            call()
    clock.synchronize(device)
    torch.cuda.profiler.stop()


def print_gpu(spans: list[Span], steps: int) -> dict[str, Any]:
    found = gaps(spans)
    print(
        f"{len(spans) / steps:.0f} kernels and copies a step; busy {found.busy / steps:.1f} us of "
        f"{found.wall / steps:.1f} us a step: {found.busy / found.wall:.1%}"
    )
    table = by_name(spans)
    print("\n| kernel | a step | us a step | of busy |\n| --- | ---: | ---: | ---: |")
    for name, count, total in table[:SHOWN]:
        print(f"| {name[:90]} | {count / steps:.1f} | {total / steps:.1f} | {total / found.busy:.1%} |")
    print("\n| idle between | us a step |\n| --- | ---: |")
    for (before, after), idle in sorted(found.between.items(), key=lambda gap: -gap[1])[:SHOWN]:
        print(f"| {before[:60]} -> {after[:60]} | {idle / steps:.2f} |")
    return {
        "busy_us": found.busy / steps,
        "wall_us": found.wall / steps,
        "kernels": len(spans) / steps,
        "rows": [{"name": name, "count": count / steps, "us": total / steps} for name, count, total in table],
    }


def print_cpu(recorded: profile, steps: int) -> dict[str, Any]:
    averages = sorted(recorded.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in averages)
    print("| operator | a step | ms a step | share |\n| --- | ---: | ---: | ---: |")
    for e in averages[:SHOWN]:
        ms = e.self_cpu_time_total / steps / 1e3
        print(f"| {e.key[:90]} | {e.count / steps:.1f} | {ms:.2f} | {e.self_cpu_time_total / total:.1%} |")
    table = [{"name": e.key, "count": e.count / steps, "us": e.self_cpu_time_total / steps} for e in averages]
    return {"wall_us": total / steps, "rows": table}


def as_train(preset: presets.Preset, batch_size: int, device: torch.device) -> Row:
    *_, last = rows(preset, batch_size, device, amp=device.type == "cuda")
    return last


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("trace", __doc__)
    parser.add_step()
    parser.add_argument("--steps", type=positive, default=20, help="recorded (default 20)")
    parser.add_argument("--nsys", action="store_true", help="run the steps between cudaProfilerStart and Stop, only")
    parser.add_outputs(chart="write the longest as bars, PNG")
    parser.add_argument("--trace", type=Path, metavar="PATH", help="write the timeline, .json or .json.gz")
    args = parser.parse_args(arguments)
    if args.nsys:
        args.device = "cuda"
    preset, batch_size, device = parser.chosen(args)
    process.set_up(device)
    row = as_train(preset, batch_size, device)
    head = report.header(device)
    report.print_header(head)
    print(f"{preset.name}, batch {batch_size}: {row.name}")
    call = start(row, preset, batch_size, device).call
    if args.nsys:
        under_nsys(call, args.steps, device)
        return
    recorded = record(call, args.steps, device)
    if device.type == "cuda":
        with parser.checked():
            spans = gpu_spans(recorded.events())
        numbers = print_gpu(spans, args.steps)
    else:
        numbers = print_cpu(recorded, args.steps)
    table = numbers.pop("rows")
    if args.json:
        report.write_json(args.json, head, table, preset=preset.name, batch_size=batch_size, **numbers)
    if args.chart:
        drawn = table[:DRAWN]
        report.bar_chart(
            args.chart,
            f"{preset.name}, batch {batch_size}, {row.name}, on {head['device']}",
            [line["name"][:60] for line in drawn],
            [line["us"] for line in drawn],
            None,
            "us per step",
        )
    if args.trace:
        args.trace.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(args.trace))


if __name__ == "__main__":
    main()
