"""Rows of bench_ops as tables, and their sums over a step.

A row has the site, how `times` the step meets it, and by variant what each pass costs, forward and perhaps backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def _sum(passes: Mapping[str, Mapping[str, Any]], key: str) -> float:
    return sum(one[key] for one in passes.values())


def _each(passes: Mapping[str, Mapping[str, Any]], key: str, form: str = "g") -> str:
    return "+".join(format(one[key], form) for one in passes.values())


def count_table(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Launches forward+backward and megabytes of both; the last line is a step's, every site as often as it occurs."""
    names: list[str] = []
    totals: Counter[str] = Counter()
    for row in rows:
        if not names:
            names = list(row["inductor"])
            inductor = "".join(f" Inductor, {name} | MB |" for name in names)
            yield f"| op | times | kernels: launches | MB | paper us |{inductor}"
            yield f"| --- | ---: | ---: | ---: | ---: |{' ---: | ---: |' * len(names)}"
        cells = [row["site"], f"{row['times']}"]
        for name, passes in {"triton": row["triton"], **row["inductor"]}.items():
            cells += [_each(passes, "launches"), f"{_sum(passes, 'bytes') / 1e6:.2f}"]
            cells += [_each(passes, "floor_us", ".2f")] if name == "triton" else []
            for key in ("launches", "bytes", *(["floor_us"] if name == "triton" else [])):
                totals[f"{name} {key}"] += row["times"] * _sum(passes, key)
        yield f"| {' | '.join(cells)} |"
    total = []
    for name in ("triton", *names):
        total += [f"{totals[f'{name} launches']:g}", f"{totals[f'{name} bytes'] / 1e6:.0f}"]
        total += [f"{totals['triton floor_us']:.0f}"] if name == "triton" else []
    yield f"| a step | | {' | '.join(total)} |"


def time_table(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Microseconds forward+backward, kernels in brackets, share of the copy's speed; a step's sum last.

    "-" is what was left out, and a sum that lacks it. Each row names every variant, so the first one knows the columns.
    """
    names: list[str] = []
    totals: Counter[str] = Counter()
    incomplete: set[str] = set()
    for row in rows:
        incomplete |= row["left_out"].keys()
        if not names:
            names = [name for name in (*row["measured"], *row["left_out"]) if name != "copy"]
            yield f"| op | times | MB | copy us |{''.join(f' {name} |' for name in names)}"
            yield f"| --- | ---: | ---: | ---: |{' ---: |' * len(names)}"
        copy, cells = row["measured"]["copy"], []
        for name in names:
            if name in row["left_out"]:
                cells.append("-")
                continue
            passes = row["measured"][name]
            share = _sum(copy, "us") / _sum(passes, "us")
            cells.append(f"{_each(passes, 'us', '.1f')} ({_each(passes, 'kernels')}) {share:.0%}")
            totals[name] += row["times"] * _sum(passes, "us")
        totals["copy"] += row["times"] * _sum(copy, "us")
        first = [row["site"], f"{row['times']}", f"{_sum(copy, 'bytes') / 1e6:.2f}", _each(copy, "us", ".1f")]
        yield f"| {' | '.join([*first, *cells])} |"
    sums = [f"{totals['copy']:.0f}", *("-" if name in incomplete else f"{totals[name]:.0f}" for name in names)]
    yield f"| a step, us | | | {' | '.join(sums)} |"


def step_totals(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """By network and variant, of all ops of a step: microseconds on a GPU, launches without one.

    Not of a variant that was left out somewhere: its sum would look small.
    """
    totals: Counter[str] = Counter()
    incomplete: set[str] = set()
    for row in rows:
        incomplete |= {f"{row['preset']}: {name}" for name in row.get("left_out", ())}
        on_gpu = "measured" in row
        variants = row["measured"] if on_gpu else {"kernels": row["triton"], **row["inductor"]}
        for name, passes in variants.items():
            totals[f"{row['preset']}: {name}"] += row["times"] * _sum(passes, "us" if on_gpu else "launches")
    return Counter({name: total for name, total in totals.items() if name not in incomplete})
