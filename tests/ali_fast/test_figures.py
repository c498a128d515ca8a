import numpy as np
import pytest
from PIL import Image

from ali_fast import figures
from ali_fast.figures import GAP, GAP_SHADE


def numbered(count, height, width, channels):
    """Images whose every pixel is their own number."""
    shape = (count, height, width, channels)
    return np.broadcast_to(np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None], shape).copy()


def tiles(sheet, tile):
    """The number at the middle of each tile, row by row."""
    step = tile + GAP
    rows, columns = (sheet.shape[0] - GAP) // step, (sheet.shape[1] - GAP) // step
    at = GAP + tile // 2
    return [[int(sheet[at + r * step, at + c * step, 0]) for c in range(columns)] for r in range(rows)]


@pytest.mark.parametrize(("size", "scale"), [(8, 6), (28, 2), (32, 2), (48, 1), (64, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grid_layout_and_scale(size, scale, channels):
    sheet = figures.grid(numbered(5, size, size, channels), columns=3)
    tile = size * scale
    assert sheet.shape == (2 * (tile + GAP) + GAP, 3 * (tile + GAP) + GAP, channels)
    assert tiles(sheet, tile) == [[1, 2, 3], [4, 5, GAP_SHADE]]


def test_pixels_stay_sharp():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    sheet = figures.grid(image, columns=1)
    assert np.array_equal(sheet[GAP:-GAP:6, GAP:-GAP:6][:8, :8], image[0])
    assert np.array_equal(sheet[GAP + 5 : -GAP : 6, GAP + 5 : -GAP : 6], image[0])


def test_reconstructions_have_originals_in_odd_columns():
    originals = numbered(4, 64, 64, 1)
    sheet = figures.reconstructions(originals, originals + 100, columns=4)
    assert tiles(sheet, 64) == [[1, 101, 2, 102], [3, 103, 4, 104]]


def test_interpolations_have_originals_at_the_ends():
    between = numbered(6, 64, 64, 1).reshape(2, 3, 64, 64, 1) + 100
    sheet = figures.interpolations(numbered(2, 64, 64, 1), between, numbered(2, 64, 64, 1) + 10)
    assert tiles(sheet, 64) == [[1, 101, 102, 103, 11], [2, 104, 105, 106, 12]]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_and_equal_bytes(tmp_path, channels):
    sheet = np.random.default_rng(1).integers(0, 256, (60, 40, channels), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        figures.write_png(sheet, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")).reshape(sheet.shape), sheet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_goes_there_and_back(tmp_path, channels):
    between = np.linspace(20, 240, 4, dtype=np.uint8)[None, :, None, None, None]
    between = np.broadcast_to(between, (2, 4, 48, 48, channels)).copy()
    frames = figures.back_and_forth(between, columns=2)
    assert [tiles(f, 48)[0] for f in frames] == [[20, 20], [93, 93], [166, 166], [240, 240], [166, 166], [93, 93]]
    for name in ("a.webp", "b.webp"):
        figures.write_webp(frames, tmp_path / name)
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.n_frames, image.info["loop"]) == (6, 0)
        for i, frame in enumerate(frames):
            image.seek(i)
            shown = np.asarray(image.convert("RGB")).astype(int)
            assert abs(shown[24, 24, 0] - int(frame[24, 24, 0])) < 8
