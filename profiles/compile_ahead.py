"""Compile the waterfall's steps ahead: many at once, into the caches from which the benches and training then start.

    python -m profiles.compile_ahead [--preset cifar10 ...] [--ends svhn ...] [--device cpu] [--jobs N]

Tracing and writing kernels keep one core for most of a minute a step; on a CPU it starts in a third to a sixth of the
time from the caches, on a GPU that awaits one.
Nothing is timed, and a step that fails here costs no more than its own start later. Caches are where
TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR say.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from joblib import cpu_count

from ali_fast import decide, presets
from profiles import report
from profiles.arguments import Parser, positive
from profiles.waterfall import rows, start


def jobs(whole: list[str], ends: list[str], device: torch.device, amp: bool) -> Iterator[tuple[str, str]]:
    """(preset, row) for the compiled rows of the first, nearest to `train` first, and the last row of the others."""
    by_name = {preset.name: preset for preset in presets.PRESETS}
    in_full = {name: [*rows(by_name[name], by_name[name].batch_size, device, amp)] for name in dict.fromkeys(whole)}
    for name in dict.fromkeys([*whole, *ends]):
        preset = by_name[name]
        *_, last = in_full.get(name) or rows(preset, preset.batch_size, device, amp)
        yield name, last.name
    for name, all_of_it in in_full.items():
        for row in reversed(all_of_it[:-1]):
            if row.compiled:
                yield name, row.name


def compile_row(preset_name: str, row_name: str, device_type: str, amp: bool) -> float:
    """In a process of its own; seconds."""
    began = time.perf_counter()
    preset = next(preset for preset in presets.PRESETS if preset.name == preset_name)
    device = decide.device(device_type).device
    row = next(row for row in rows(preset, preset.batch_size, device, amp) if row.name == row_name)
    start(row, preset, preset.batch_size, device)
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("compile_ahead", __doc__)
    parser.add_networks()
    parser.add_argument("--ends", nargs="+", default=[], metavar="PRESET", help="of these the last row only")
    parser.add_device()
    parser.add_argument("--jobs", type=positive, help="processes at once; default: half the cores")
    args = parser.parse_args(arguments)
    whole = [preset.name for preset in parser.networks(args)]
    parser.check("--ends", args.ends, [preset.name for preset in presets.PRESETS])
    with parser.checked():
        device = decide.device(args.device).device
    report.print_header(report.header(device))
    amp = device.type == "cuda"
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")  # of each process
    workers = args.jobs or max(1, cpu_count() // 2)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, max_tasks_per_child=1) as pool:
        begun = {
            pool.submit(compile_row, preset, row, device.type, amp): f"{preset}: {row}"
            for preset, row in jobs(whole, args.ends, device, amp)
        }
        for done in as_completed(begun):
            error = done.exception()
            said = f"{done.result():.0f} s" if error is None else report.in_short(error)
            print(f"  {begun[done]}: {said}", flush=True)


if __name__ == "__main__":
    main()
