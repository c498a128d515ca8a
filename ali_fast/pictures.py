"""Anyone's image files as the arrays a trained model takes: by the rule by which `prepare folder` made its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from ali_fast.figures import Images
from ali_fast.images import SUFFIXES, decode_square, list_images, read_image_file


def list_pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as given; a directory stands for the images in it and below, by their paths. Raises InputError where there
    are none."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(list_images(path))
            if not inside:
                raise InputError(f"{path} has no images: files ending in {', '.join(SUFFIXES)} are looked for")
            files += [path / name for name in inside]
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image or directory")
    return files


def read_pictures(files: Sequence[Path], image_shape: tuple[int, int, int]) -> Images:
    """uint8 [N, S, S, C] of `image_shape` (S, S, C): upright, the centred square, as ali_fast.images has it.

    Raises InputError naming the file that is no readable image.
    """
    height, width, channels = image_shape
    assert height == width, "every preset's images are square"
    images = np.empty((len(files), *image_shape), dtype=np.uint8)
    for i, file in enumerate(files):
        images[i] = decode_square(read_image_file(file, str(file)), str(file), height, channels, upright=True)
    return images
