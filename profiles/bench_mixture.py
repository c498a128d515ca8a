"""Ten models of the 2-D mixture as one program, beside ten single runs: milliseconds for one step of every member.

    python -m profiles.bench_mixture [--model ali] [--members 10] [--device cpu] [--rounds 15] [--json PATH]

Rows, timed in turn in one run: our step of one member in eager mode (torch's own operations, one backward for both
players); the same compiled, on a GPU captured as well; all members in one. The first two are counted `members` times:
single runs go one after another.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ali_fast import decide
from ali_fast.mixture import grid
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.nets import PAPER
from ali_fast.mixture.setting import Setting, member_seed
from ali_fast.mixture.step import Step
from profiles import clock, report
from profiles.arguments import Parser, positive

BATCH, POINTS, WARM_UP = 100, 100_000, 5


def make_step(name: str, members: int, device: torch.device, compile: bool) -> Callable[[], None]:
    """A step of the paper's nets on the paper's data, as a call."""
    points = torch.from_numpy(grid.sample(POINTS, np.random.default_rng(0))[0]).float().to(device)
    model, setting = MODELS[name](members, PAPER), Setting()
    seeds = [member_seed("bench", i) for i in range(members)]
    model.initialize(seeds, [setting.init_std] * members)
    captured = compile and device.type == "cuda"
    step = Step(model, points, [setting] * members, seeds, total_steps=10**6, compile=compile, cuda_graph=captured)
    rows: Tensor = torch.randint(POINTS, (members, BATCH), device=device)
    call = functools.partial(step, rows)
    start = time.perf_counter()
    for _ in range(WARM_UP):
        call()
    clock.synchronize(device)
    print(
        f"  {members} at once{', compiled' if compile else ''}: ready in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return call


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("bench_mixture", __doc__)
    parser.add_argument("--model", default="ali", choices=MODELS)
    parser.add_argument("--members", type=positive, default=10)
    parser.add_device()
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_outputs(chart=None)
    given = parser.parse_args(arguments)
    with parser.checked():
        device = decide.device(given.device).device
    head = report.header(device)
    report.print_header(head)
    n = given.members
    variants = [
        (f"{n} single runs, eager", 1, False, n),
        (f"{n} single runs, compiled", 1, True, n),
        (f"{n} as one program, compiled", n, True, 1),
    ]
    calls = [make_step(given.model, members, device, compile) for _, members, compile, _ in variants]
    timings = clock.interleaved(calls, device, rounds=given.rounds, burst_seconds=1.0)
    first = timings[0].median * variants[0][3]
    rows = []
    for (name, _, _, times), timing in zip(variants, timings, strict=True):
        ms, spread = timing.median * times, timing.iqr * times
        print(f"{name:32s} {ms:9.1f} ms for {n} members' step (iqr {spread:.1f})   {first / ms:5.2f} x")
        rows.append({"name": name, "ms": ms, "spread_ms": spread, "members": n})
    if given.json:
        report.write_json(given.json, head, rows, model=given.model)


if __name__ == "__main__":
    main()
