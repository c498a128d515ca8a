"""Where the points are and which have colours."""

import numpy as np
from PIL import Image

from ali_fast.mixture import figure8, grid


def column(title, generator, bad=False):
    points = grid.sample(400, generator)[0]
    if bad:
        points[::2] = np.nan
    return figure8.Column(title, points / 3, points, generator.standard_normal((400, 2)), points)


def drawn(tmp_path, name, columns):
    points, components = grid.sample(400, np.random.default_rng(0))
    paths = [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"]
    figure8.draw(columns, points, components, paths)
    return paths


def panels(path, columns):
    """float [5, columns, h, w, 3]: the picture cut into its panels' areas, roughly."""
    image = np.asarray(Image.open(path).convert("RGB")).astype(float)
    tall, wide = image.shape[0] // 5, image.shape[1] // columns
    cut = image[: 5 * tall, : columns * wide]
    return cut.reshape(5, tall, columns, wide, 3).swapaxes(1, 2)


def test_rows_of_points_are_coloured_by_component_and_the_rest_is_black(tmp_path):
    generator = np.random.default_rng(1)
    png, pdf = drawn(tmp_path, "four", [column(title, generator) for title in "wxyz"])
    assert pdf.read_bytes().startswith(b"%PDF")
    saturation = np.ptp(panels(png, 4), axis=-1)  # [5, 4, h, w]
    coloured = (saturation > 60).sum(axis=(2, 3))
    assert (coloured[:3] > 200).all()
    assert (coloured[3:] == 0).all()


def test_the_same_points_give_the_same_files(tmp_path):
    first, second = (drawn(tmp_path, name, [column("a", np.random.default_rng(2))]) for name in ("one", "two"))
    for ours, theirs in zip(first, second, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_points_that_are_not_finite_are_left_out(tmp_path):
    whole, half = (
        panels(drawn(tmp_path, name, [column("a", np.random.default_rng(3), bad)])[0], 1)[4]
        for name, bad in (("whole", False), ("half", True))
    )
    ink = [(255 - panel).sum() for panel in (whole, half)]
    assert 0.3 < ink[1] / ink[0] < 0.97


def test_no_half_written_file_is_left(tmp_path):
    drawn(tmp_path, "one", [column("a", np.random.default_rng(4))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png"]
