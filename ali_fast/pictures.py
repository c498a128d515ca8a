"""Anyone's image files as the arrays a trained model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ali_fast.errors import InputError
from ali_fast.figures import Images


def list_pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as given; a directory stands for the images in it, by name. Raises InputError where there are none."""
    known = Image.registered_extensions()
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in known)
            if not inside:
                raise InputError(f"{path} has no images")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image or directory")
    return files


def read_pictures(files: Sequence[Path], image_shape: tuple[int, int, int]) -> Images:
    """uint8 [N, H, W, C]: turned upright, gray or RGB as `image_shape` says, scaled and centre-cropped to it.

    Raises InputError naming the file that is no readable image.
    """
    height, width, channels = image_shape
    images = np.empty((len(files), *image_shape), dtype=np.uint8)
    for i, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (width, height), method=Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is no readable image: {error}") from error
        images[i] = np.asarray(fitted).reshape(image_shape)
    return images
