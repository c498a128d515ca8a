"""What every profile prints and writes: versions and device on top, the command beside the numbers, JSON, a chart."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ali_fast import environment
from ali_fast.files import write_text

MOST_CHARACTERS = 200  # of an error


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = environment.collect()
    return f"{facts['cpu']}, {facts['torch_threads']} threads"


def command() -> str:
    """The command line of this process, as it would be typed again."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", module.name] if module else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def header(device: torch.device) -> dict[str, Any]:
    facts = environment.collect()
    versions = {name: facts["packages"][name] for name in ("torch", "triton", "numpy", "ffcv")}
    versions |= {"python": facts["python"], "cuda": facts["cuda_runtime"], "git_commit": facts["git_commit"]}
    return {"device": device_name(device), "versions": versions, "command": command()}


def print_header(head: Mapping[str, Any]) -> None:
    print(head["device"])
    print(", ".join(f"{name} {version}" for name, version in head["versions"].items() if version))
    print(f"$ {head['command']}", flush=True)


def in_short(error: BaseException) -> str:
    """Its kind and first line, of which torch's may be a list of all options."""
    line = f"{type(error).__name__}: {error}".split("\n")[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."


def write_json(path: Path, head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**head, **more, "rows": rows}, indent=2) + "\n")


def bar_chart(
    path: Path, title: str, names: Sequence[str], values: Sequence[float], spreads: Sequence[float] | None, unit: str
) -> None:
    """Horizontal bars, the first row on top, each with its value and, if known, its spread."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(names) + 1.4), layout="constrained")
    error = None if spreads is None else [s / 2 for s in spreads]
    bars = axes.barh(range(len(names)), values, xerr=error, color="#4477aa", ecolor="#888888")
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
