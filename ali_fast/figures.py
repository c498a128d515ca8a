"""Grids of images, drawn with Pillow: the same numbers give the same bytes.

Images are uint8 [N, H, W, C] arrays, C = 1 (gray) or 3 (RGB). Small images are enlarged by a whole factor,
pixels kept square and sharp, so that an 8x8 digit can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ali_fast.files import output

Images = npt.NDArray[np.uint8]

TILE = 48  # pixels: smaller images are enlarged to at least this
GAP = 2  # pixels between tiles
GAP_SHADE = 128
FRAMES_PER_SECOND = 15


def grid(images: Images, columns: int) -> Images:
    """Lay `images` [N, H, W, C] out row by row in `columns` columns; returns uint8 [height, width, C]."""
    count, height, width, channels = images.shape
    scale = max(1, -(-TILE // max(height, width)))
    rows = -(-count // columns)
    tall, wide = height * scale, width * scale
    sheet = np.full((rows * (tall + GAP) + GAP, columns * (wide + GAP) + GAP, channels), GAP_SHADE, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = GAP + (i // columns) * (tall + GAP), GAP + (i % columns) * (wide + GAP)
        sheet[top : top + tall, left : left + wide] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return sheet


def reconstructions(originals: Images, reconstructed: Images, columns: int = 10) -> Images:
    """The paper's layout: originals in odd columns (the first, ...), each followed by its reconstruction."""
    pairs = np.stack([originals, reconstructed], axis=1)
    return grid(pairs.reshape(-1, *originals.shape[1:]), columns=columns // 2 * 2)


def interpolations(first: Images, between: Images, last: Images) -> Images:
    """A row per pair: its originals `first` and `last` [N, H, W, C] at the ends, the decoded way
    `between` [N, S, H, W, C] in the middle."""
    rows = np.concatenate([first[:, None], between, last[:, None]], axis=1)
    return grid(rows.reshape(-1, *first.shape[1:]), columns=rows.shape[1])


def back_and_forth(between: Images, columns: int = 10) -> list[Images]:
    """The ways `between` [N, S, H, W, C] side by side, as the frames of a loop from first to last and back."""
    there = [grid(between[:, s], columns) for s in range(between.shape[1])]
    return [*there, *there[-2:0:-1]]


def write_png(sheet: Images, path: Path) -> None:
    """Write `sheet` [height, width, C] whole or not at all."""
    _write(path, [_picture(sheet)], format="PNG", optimize=True)


def write_webp(frames: list[Images], path: Path) -> None:
    """Write sheets [height, width, C] as an animation without end, whole or not at all."""
    duration = 1000 // FRAMES_PER_SECOND
    _write(path, [_picture(f) for f in frames], format="WEBP", save_all=True, duration=duration, loop=0, quality=80)


def _picture(sheet: Images) -> Image.Image:
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)


def _write(path: Path, pictures: list[Image.Image], **options: Any) -> None:
    if len(pictures) > 1:
        options["append_images"] = pictures[1:]
    with output(path) as name:
        pictures[0].save(name, **options)
