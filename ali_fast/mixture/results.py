"""From trained members to numbers: what each run did, what a method did over its runs, and the tables.

Plain JSON values throughout. A member that diverged has its step and no measures; means are over the others, and say
over how many.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from ali_fast.mixture.measures import Modes
from ali_fast.mixture.setting import Setting

PAPER = {"ali": "13.4 ± 5.8 (8 to 25)", "gan": "10.4 ± 9.2 (1 to 22)"}
"""Modes covered, over ten runs (section 4.5)."""
PACGAN = {
    "ali": {"near": "24.1 ± 0.4", "high_quality": "95.7 ± 0.6 %", "reverse_kl": "0.14 ± 0.03"},
    "gan": {"near": "17.3 ± 0.8", "high_quality": "94.8 ± 0.7 %", "reverse_kl": "0.70 ± 0.07"},
}
"""Table 1 of PacGAN (Lin et al., NeurIPS 2018): the same nets at the code's setting, 400 epochs, ten seeds, 2,500
samples, +- standard error. Its best, PacGAN4: 24.8 ± 0.2, 93.6 ± 0.6 %, 0.04 ± 0.01. Its reverse KL is of the samples
near a mode alone, in its code: `reverse_kl_near` here."""
NAMES = {"ali": "ALI", "gan": "GAN", "inverse": "GAN + inverse", "post-hoc": "GAN + post-hoc", "vae": "VAE"}
MEASURES = Modes._fields


def of_runs(
    settings: Sequence[Setting],
    seeds: Sequence[int],
    first_bad: Sequence[int | None],
    found: Sequence[Modes | None],
    found_2500: Sequence[Modes | None],
) -> list[dict[str, Any]]:
    """One entry a run: seed, setting, status, and measures of 10,000 and of 2,500 samples (null where it diverged)."""
    runs = []
    members = zip(settings, seeds, first_bad, found, found_2500, strict=True)
    for i, (setting, seed, bad, modes, modes_2500) in enumerate(members):
        good = bad is None and modes is not None and modes_2500 is not None
        runs.append(
            {
                "run": i,
                "seed": seed,
                "setting": dataclasses.asdict(setting),
                "status": status(bad, measured=good),
                "modes": finite(modes._asdict()) if good and modes else None,
                "modes_2500": finite(modes_2500._asdict()) if good and modes_2500 else None,
            }
        )
    return runs


def status(first_bad: int | None, measured: bool) -> str:
    """A run's end in words; first_bad: the first step, from 0, whose loss was not finite."""
    if first_bad is not None:
        return f"diverged at step {first_bad + 1}"
    return "trained" if measured else "diverged"


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor infinity: null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def summary(runs: Sequence[dict[str, Any]], of: str = "modes") -> dict[str, Any]:
    """Mean, standard deviation, standard error, least and most of each measure over the runs that trained."""
    trained = [run[of] for run in runs if run[of] is not None]
    values: dict[str, Any] = {"runs": len(runs), "trained": len(trained)}
    for name in MEASURES:
        found = [modes[name] for modes in trained if modes[name] is not None]
        if found:
            std = statistics.stdev(found) if len(found) > 1 else None  # one run has no spread
            values[name] = {
                "mean": statistics.fmean(found),
                "std": std,
                "stderr": None if std is None else std / math.sqrt(len(found)),
                "min": min(found),
                "max": max(found),
                "over": len(found),
            }
    return values


def best(runs: Sequence[dict[str, Any]]) -> int | None:
    """The run that covers most: by responsibility as in the paper, then near, then by balance. None if none trained."""
    trained = [run for run in runs if run["modes"] is not None]
    if not trained:
        return None
    chosen = max(trained, key=lambda run: (run["modes"]["covered"], run["modes"]["near"], -run["modes"]["reverse_kl"]))
    return chosen["run"]


def coverage_table(methods: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a method: modes over its runs beside the paper's, then the later measures beside PacGAN's."""
    header = ["", "runs", "modes (std; min to max)", "paper", "modes near (s.e.)", "PacGAN"]
    rows = [[*header, "high quality (s.e.)", "PacGAN", "reverse KL (s.e.)", "PacGAN"]]
    for method, values in methods.items():
        of_all, later, few = values["summary"], PACGAN[method], values["summary_2500"]
        rows.append(
            [
                NAMES[method],
                f"{of_all['trained']} of {of_all['runs']}",
                _spread(of_all.get("covered")),
                PAPER[method],
                _error(few, "near", ".1f"),
                later["near"],
                _error(few, "high_quality", ".1f", 100, " %"),
                later["high_quality"],
                _error(few, "reverse_kl_near", ".2f"),
                later["reverse_kl"],
            ]
        )
    return _markdown(rows)


def inference_table(columns: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a column of figure 8."""
    rows = [["", "modes", "|x - x_hat|^2", "same component", "MMD^2 of q(z), p(z)", "MMD^2 of x_hat, x"]]
    for name, values in columns.items():
        rows.append(
            [
                NAMES[name],
                str(values["modes"]["covered"]) if values["modes"] else "diverged",
                *(
                    ["", "", "", ""]
                    if values["inference"] is None
                    else [
                        f"{values['inference']['error']:.4f}",
                        f"{values['inference']['same_component']:.1%}",
                        f"{values['inference']['mmd2_codes']:.2e}",
                        f"{values['inference']['mmd2_points']:.2e}",
                    ]
                ),
            ]
        )
    return _markdown(rows)


def runs_table(method: str, runs: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row a run."""
    rows = [["run", "learning rate", "beta1", "init std", "modes", "near", "high quality", "reverse KL", ""]]
    for run in runs:
        setting, modes = run["setting"], run["modes"]
        found = [""] * 4
        if modes is not None:
            found = [
                str(modes["covered"]),
                str(modes["near"]),
                f"{modes['high_quality']:.1%}",
                "" if modes["reverse_kl_near"] is None else f"{modes['reverse_kl_near']:.3f}",
            ]
        rows.append(
            [
                f"{NAMES[method]} {run['run']}",
                f"{setting['learning_rate']:.2e}",
                f"{setting['beta1']:.3f}",
                f"{setting['init_std']:.4f}",
                *found,
                "" if run["status"] == "trained" else run["status"],
            ]
        )
    return _markdown(rows)


def _spread(values: dict[str, Any] | None) -> str:
    if values is None:
        return "none trained"
    if values["std"] is None:
        return f"{values['mean']:.1f}"
    return f"{values['mean']:.1f} ± {values['std']:.1f} ({values['min']} to {values['max']})"


def _error(of_method: dict[str, Any], name: str, form: str, times: float = 1, unit: str = "") -> str:
    """A measure's mean and standard error, and over how many runs where it has no finite value in some."""
    values = of_method.get(name)
    if values is None:
        return ""
    error = "" if values["stderr"] is None else f" ± {values['stderr'] * times:{form}}"
    over = f" (of {values['over']})" if values["over"] < of_method["trained"] else ""
    return f"{values['mean'] * times:{form}}{error}{unit}{over}"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
