"""`report.html` of a run: one file that opens from disk and asks for nothing outside itself, light or dark.

Made from what the run directory already holds: ticks, figures, evaluations, configuration, environment. A damaged
file there is left out and named: it must not end the training that draws the report.
"""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ali_fast.files import write_text
from ali_fast.live import clock, score_names
from ali_fast.metrics import read_metrics
from ali_fast.run_directory import RunDirectory

WIDTH, HEIGHT = 340, 190  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 24  # margins for the axes' numbers
MOST_POINTS = 500  # of a curve
TICKS = 4  # about so many on an axis
PLACE = {"step", "epoch", "seconds"}  # what every tick has

CHARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Losses", {"loss_d": "L_d", "loss_g": "L_g", "loss_labels": "of the labels"}),
    ("Loss", {"loss": "loss", "reconstruction": "-log p(x|z)", "kl": "KL"}),
    ("Scores of D", {"score_data": "data", "score_sample": "samples"}),  # named by score_names
    ("Sigma of q(z|x)", {"sigma": "mean sigma"}),
    ("Reconstruction error", {"reconstruction_error": "validation"}),
    ("Classification error", {"held_out_error": "held out"}),
    ("Speed", {"images_per_second": "images/s"}),
)
FIGURES: tuple[tuple[str, str, str], ...] = (
    ("samples", "Samples", "G(z) of fixed noise z."),
    ("reconstructions", "Reconstructions", "Odd columns: validation images x. Even columns: G(mu(x))."),
    (
        "interpolations",
        "Interpolations",
        "Between the sampled codes of two validation images, which stand at the ends of each row.",
    ),
    ("traverse", "Conditions", "One code in each row or picture, the condition varied."),
)


class Curve(NamedTuple):
    """A line in a chart: `points` as an SVG path's data, `last` as text."""

    label: str
    path: str
    last: str


class Mark(NamedTuple):
    """A number on an axis, and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    curves: list[Curve]
    across: list[Mark]
    up: list[Mark]


def write(run: RunDirectory) -> Path:
    """Render `run`'s report over the previous one, whole or not at all. What is not there yet is left out."""
    write_text(run.report, render(run))
    return run.report


def render(run: RunDirectory) -> str:
    from jinja2 import Environment

    ticks = _ticks(run.metrics) if run.metrics.exists() else []
    evaluations = sorted(run.evaluation.glob("*.json"))
    found = {path: _json(path) for path in (*evaluations, run.config, run.environment)}
    found |= {path: None for path in evaluations if not _is_result(found[path] or {})}
    config, environment = found[run.config] or {}, found[run.environment] or {}
    template = resources.files("ali_fast").joinpath("report_template.html").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            name=config.get("preset") or run.path.name,
            dataset=config.get("dataset", ""),
            objective=config.get("objective", "ali"),
            facts=facts(ticks),
            charts=charts(ticks),
            size=(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
            figures=_figures(run.figures),
            evaluations=[found[path] for path in evaluations if found[path]],
            speed=speed(ticks),
            config=_flat(config),
            environment=_flat(environment),
            unreadable=[str(path.relative_to(run.path)) for path, values in found.items() if values is None],
        )
    )


def facts(ticks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The run's place and its last numbers, as (name, value)."""
    if not ticks:
        return []
    last = ticks[-1]
    shown = [("step", f"{last['step']:,}"), ("epoch", f"{last['epoch']:.1f}"), ("trained for", clock(last["seconds"]))]
    names = {"sigma": "mean sigma", "reconstruction_error": "reconstruction error", "held_out_error": "held-out error"}
    shown += [(label, number(last[key])) for key, label in names.items() if last.get(key) is not None]
    return shown


def speed(ticks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Median and range over the ticks, as (quantity, text)."""
    names = {"images_per_second": "images per second", "step_ms": "milliseconds per step"}
    found = []
    for key, label in names.items():
        values = [tick[key] for tick in ticks if tick.get(key) is not None]
        if values:
            low, high = number(min(values)), number(max(values))
            found.append((label, f"{number(statistics.median(values))} ({low} to {high} over {len(values)} ticks)"))
    waits = [tick["data_wait_share"] for tick in ticks if tick.get("data_wait_share") is not None]
    if waits:
        found.append(("share of time waiting for data", f"{statistics.median(waits):.1%}"))
    peaks = [tick["peak_bytes"] for tick in ticks if tick.get("peak_bytes") is not None]
    if peaks:
        found.append(("peak memory on the device", f"{max(peaks) / 2**30:.2f} GiB"))
    return found


def charts(ticks: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for each group of CHARTS that has at least two values to show."""
    made = []
    named = dict(zip(("score_data", "score_sample"), score_names(ticks[-1]), strict=True)) if ticks else {}
    for title, labels in CHARTS:
        series = {
            named.get(key, label): [(tick["epoch"], tick[key]) for tick in ticks if tick.get(key) is not None]
            for key, label in labels.items()
        }
        series = {label: points for label, points in series.items() if len(points) > 1}
        if series:
            made.append(chart(title, series))
    return made


def chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    """`series`: points (epoch, value) by label, on common axes."""
    every = [point for points in series.values() for point in points]
    x0, x1 = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    y0, y1 = low - room if low < 0 or low - room > 0 else 0.0, high + room

    def across(x: float) -> float:
        return LEFT + (x - x0) / ((x1 - x0) or 1.0) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    curves = []
    for label, points in series.items():
        kept = points[:: -(-len(points) // MOST_POINTS)]
        kept = kept if kept[-1] == points[-1] else [*kept, points[-1]]
        path = "M" + " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in kept)
        curves.append(Curve(label, path, number(points[-1][1])))
    return Chart(
        title,
        curves,
        marks(round_numbers(x0, x1), across),
        marks(round_numbers(y0, y1), up),
    )


def round_numbers(low: float, high: float) -> list[float]:
    """About TICKS multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= TICKS)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def marks(values: Sequence[float], place: Callable[[float], float]) -> list[Mark]:
    """With as many decimals as tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [Mark(place(value), f"{value:,.{decimals}f}") for value in values]


def number(value: float) -> str:
    """Three significant digits, large numbers whole."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ticks(path: Path) -> list[dict[str, float]]:
    """The numbers of each tick that has its place: JSON may hold anything under a name."""
    lines = [
        {name: value for name, value in line.items() if isinstance(value, int | float) and math.isfinite(value)}
        for line in read_metrics(path)
    ]
    return [line for line in lines if line.keys() >= PLACE]


def _is_result(values: Mapping[str, Any]) -> bool:
    """Whether these are an `evaluate.result.Result`, as far as the template goes through it."""
    tables = [values.get("rows"), values.get("paper")]
    lists = [values.get("columns"), *(row for table in tables if isinstance(table, list) for row in table)]
    return all(isinstance(one, list) for one in [*tables, *lists])


def _figures(directory: Path) -> list[dict[str, str]]:
    """The pictures that are there as data URIs, the animation beside the interpolations."""
    found = []
    for name, title, caption in FIGURES:
        still, moving = directory / f"{name}.png", directory / f"{name}.webp"
        if still.exists():
            figure = {"title": title, "caption": caption, "still": _data_uri(still, "image/png")}
            if moving.exists():
                figure["moving"] = _data_uri(moving, "image/webp")
            found.append(figure)
    return found


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _json(path: Path) -> dict[str, Any] | None:
    """{} where there is no such file, None where it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text); what is None is left out."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif value and isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            for i, item in enumerate(value):
                rows += _flat(item, f"{prefix}{name}.{i}.")
        elif value is not None and value != []:
            rows.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return rows
