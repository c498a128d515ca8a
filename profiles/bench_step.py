"""The step, from the usual one to ours: each row adds one thing, all rows are timed in turn in one run.

    python -m profiles.bench_step --dataset cifar10 [--preset P] [--batch-size N] [--backward two] [--json PATH]

Synthetic images: no data set is needed. The first row is `profiles.usual`; the second the same in channels-last
memory, as ours always is; from the third on it is `ali_fast.step.Step` itself. The last is what `train` uses.
GFLOP are counted on a row's eager form; kernels and peak memory by the GPU's profiler and allocator. The share of
peak is against a large matrix product of the row's data type, timed in the same run. With --json the first and the
last row are timed and written before the others start, and again with all of them: a run that is killed leaves these.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from ali_fast import process
from ali_fast.objective import Route
from ali_fast.presets import Preset
from profiles import clock, report
from profiles.arguments import Parser, positive
from profiles.waterfall import Row, Running, rows, start


def start_all(
    in_turn: Iterable[Row], preset: Preset, batch_size: int, device: torch.device, until: float = float("inf")
) -> tuple[dict[str, Running], dict[str, str]]:
    """The rows that run, by name, and why the others do not.

    One that fails is no reason to lose the others; after `until`, of time.perf_counter, none is started.
    """
    started: dict[str, Running] = {}
    left_out: dict[str, str] = {}
    for row in in_turn:
        if time.perf_counter() > until:
            left_out[row.name] = "no time was left to start it"
            continue
        began = time.perf_counter()
        try:
            started[row.name] = start(row, preset, batch_size, device)
        except Exception as error:
            traceback.print_exc()
            left_out[row.name] = report.in_short(error)
        else:
            print(f"  ready in {time.perf_counter() - began:.0f} s: {row.name}", flush=True)
    return started, left_out


def bench(
    waterfall: list[Row],
    started: dict[str, Running],
    batch_size: int,
    device: torch.device,
    *,
    rounds: int,
    burst_seconds: float,
    count_kernels: bool = True,
) -> list[dict[str, Any]]:
    """The numbers of the rows that run, in the waterfall's order.

    Kernels are counted when all is timed: torch's profiler stays attached to the process, whose launches may slow down.
    """
    count_kernels = count_kernels and device.type == "cuda"
    timed = [row for row in waterfall if row.name in started]
    calls = [started[row.name].call for row in timed]
    timings = clock.interleaved(calls, device, rounds=rounds, burst_seconds=burst_seconds)
    kernels_run = [counted_kernels(call) if count_kernels else None for call in calls]
    return [
        {
            "name": row.name,
            "step_ms": timing.median,
            "spread_ms": timing.iqr,
            "images_per_s": batch_size / timing.median * 1e3,
            "gflop": row.gflop(),
            "kernels": kernels_of_row,
            "peak_bytes": started[row.name].peak_bytes,
            "ratio": timings[0].median / timing.median,
        }
        for row, timing, kernels_of_row in zip(timed, timings, kernels_run, strict=True)
    ]


def counted_kernels(call: Callable[[], object]) -> float | None:
    """None where the profiler fails or sees nothing: what was timed is kept."""
    try:
        return clock.gpu_kernels(call) or None
    except Exception as error:
        print(f"kernels were not counted: {report.in_short(error)}", flush=True)
        return None


def print_table(waterfall: list[Row], results: list[dict[str, Any]], peaks: dict[torch.dtype, float]) -> None:
    """As Markdown; peaks in 10^12 operations a second."""
    dtypes = {row.name: row.dtype for row in waterfall}
    print("| step | ms | spread | images/s | GFLOP | GPU kernels | peak MB | of peak | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in results:
        share = r["gflop"] / r["step_ms"] / peaks[dtypes[r["name"]]]
        kernels_run = "-" if r["kernels"] is None else f"{r['kernels']:.0f}"
        memory = "-" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.0f}"
        print(
            f"| {r['name']} | {r['step_ms']:.3f} | {r['spread_ms']:.3f} | {r['images_per_s']:.0f} | {r['gflop']:.1f} "
            f"| {kernels_run} | {memory} | {share:.0%} | {r['ratio']:.2f} |"
        )


def peak_rates(waterfall: list[Row], device: torch.device) -> dict[torch.dtype, float]:
    """10^12 operations a second by data type of the rows."""
    return {dtype: clock.peak_tflops(dtype, device) for dtype in dict.fromkeys(row.dtype for row in waterfall)}


def chart(path: Path, title: str, results: list[dict[str, Any]]) -> None:
    report.bar_chart(
        path,
        title,
        [f"{r['name']} ({r['ratio']:.1f}x)" for r in results],
        [r["step_ms"] for r in results],
        [r["spread_ms"] for r in results],
        "ms per step",
    )


def make_parser() -> Parser:
    parser = Parser("bench_step", __doc__)
    parser.add_step()
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="default: on CUDA only")
    parser.add_argument(
        "--backward", choices=("auto", "two"), default="auto", help="two: L_d's and L_g's apart, in every row of ours"
    )
    parser.add_argument("--rounds", type=positive, default=11, help="bursts of each row (default 11)")
    parser.add_argument("--burst-seconds", type=float, default=0.2, help="length of a burst (default 0.2)")
    parser.add_argument(
        "--start-seconds", type=float, default=float("inf"), help="start no row after so long, but the first and last"
    )
    parser.add_argument("--only", choices=("all", "ends"), default="all", help="ends: the first and the last row")
    parser.add_outputs()
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(arguments)
    preset, batch_size, device = parser.chosen(args)
    amp = device.type == "cuda" if args.amp is None else args.amp

    head = report.header(device)
    report.print_header(head)
    print(f"{preset.name}, batch {batch_size}")
    process.set_up(device)
    until = time.perf_counter() + args.start_seconds
    route: Route | None = "two" if args.backward == "two" else None
    first, *between, last = rows(preset, batch_size, device, amp, route)
    if args.only == "ends":
        between = []
    waterfall = [first, *between, last]
    peaks = peak_rates(waterfall, device)
    in_words = {str(dtype).removeprefix("torch."): peak for dtype, peak in peaks.items()}
    print("one large matrix product: " + ", ".join(f"{name} {peak:.2f} TFLOP/s" for name, peak in in_words.items()))
    measure = functools.partial(
        bench, batch_size=batch_size, device=device, rounds=args.rounds, burst_seconds=args.burst_seconds
    )

    def write(results: list[dict[str, Any]], left_out: dict[str, str]) -> None:
        about = {"preset": preset.name, "batch_size": batch_size, "backward": args.backward}
        more = about | {"peak_tflops": in_words, "left_out": left_out}
        report.write_json(args.json, head, results, **more)

    started, left_out = start_all([first, last], preset, batch_size, device)
    if first.name not in started:
        sys.exit("the first row, which every ratio is against, did not run")
    if between and args.json:  # the rows between take minutes to compile: a process killed in them leaves the ends
        ends = measure([first, last], started, count_kernels=False)
        print_table([first, last], ends, peaks)
        write(ends, left_out | {row.name: "not started when this was written" for row in between})
    # What is nearest to `train` is worth most where time is short.
    more_started, more_left_out = start_all(reversed(between), preset, batch_size, device, until)
    started, left_out = started | more_started, left_out | more_left_out
    results = measure(waterfall, started)
    print_table(waterfall, results, peaks)
    for name, why in left_out.items():
        print(f"\nleft out: {name}: {why}")
    if args.json:
        write(results, left_out)
    if args.chart:
        chart(args.chart, f"{preset.name}, batch {batch_size}, on {head['device']}", results)


if __name__ == "__main__":
    main()
