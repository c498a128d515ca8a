"""Figure 8 of the paper: five rows of points for each way to infer codes.

Columns: ALI, GAN with its learned inverse mapping, GAN with post-hoc inference, VAE. Rows: validation points coloured
by component; their codes; their reconstructions; prior samples; generated samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ali_fast.files import whole
from ali_fast.mixture.grid import MEANS

ROWS = (
    "x ~ q(x)",
    "ẑ ~ q(z)",
    "x̂: reconstructions",
    "z ~ p(z)",
    "x̃ ~ p(x)",
)
POINT_LIMITS, CODE_LIMITS = (-6.0, 6.0), (-4.0, 4.0)
SHOWN = 10_000


class Column(NamedTuple):
    """What a model makes of the validation points. All float [N, 2]; not finite points are left out."""

    title: str
    codes: np.ndarray
    reconstructions: np.ndarray
    prior: np.ndarray
    samples: np.ndarray


def draw(columns: list[Column], points: np.ndarray, components: np.ndarray, paths: list[Path]) -> None:
    """Write the figure to each of `paths`, by its suffix (.png, .pdf), whole or not at all.

    points: float [N, 2], components: int [N], of the validation set.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # neighbours in the grid get colours far apart
    shuffled = np.random.default_rng(1).permutation(len(MEANS))[components]
    wide, tall, label, title = 2.6 * len(columns), 2.6 * len(ROWS), 0.5, 0.3  # inches
    figure = Figure(figsize=(wide + label, tall + title))
    FigureCanvasAgg(figure)
    # places by hand: matplotlib's own layout takes longer than all the rest
    room = {"left": label / (wide + label), "right": 0.995, "bottom": 0.015, "top": 1 - title / (tall + title)}
    axes = figure.subplots(len(ROWS), len(columns), squeeze=False, gridspec_kw=room | {"wspace": 0.12, "hspace": 0.1})
    for j, column in enumerate(columns):
        axes[0, j].set_title(column.title)
        panels = [points, column.codes, column.reconstructions, column.prior, column.samples]
        for i, (panel, limits) in enumerate(
            zip(panels, (POINT_LIMITS, CODE_LIMITS, POINT_LIMITS, CODE_LIMITS, POINT_LIMITS), strict=True)
        ):
            axis, shown = axes[i, j], np.isfinite(panel[:SHOWN]).all(axis=1)
            by_component = {"c": shuffled[:SHOWN][shown], "cmap": "turbo", "vmin": 0, "vmax": len(MEANS) - 1}
            colours = by_component if i < 3 else {"c": "black"}
            xy = panel[:SHOWN][shown]
            axis.scatter(xy[:, 0], xy[:, 1], s=1.5, alpha=0.4, linewidths=0, rasterized=True, **colours)
            axis.set(xlim=limits, ylim=limits, aspect="equal", xticks=limits, yticks=limits)
            axis.tick_params(labelsize=6, length=2)
            if j == 0:
                axis.set_ylabel(ROWS[i])
    for path in paths:
        # no date: the same points give the same file
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        with whole(path) as part:
            figure.savefig(part, format=path.suffix[1:], dpi=150, metadata=metadata)
