import numpy as np
import pytest
from PIL import Image

from ali_fast.errors import InputError
from ali_fast.pictures import list_pictures, read_pictures


def test_same_size_is_read_unchanged(tmp_path):
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (9, 9, channels), dtype=np.uint8)
        path = tmp_path / f"{channels}.png"
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
        assert np.array_equal(read_pictures([path], (9, 9, channels))[0], pixels)


def test_modes_and_sizes_come_to_one_shape(tmp_path):
    for i, (mode, size) in enumerate(
        [("RGBA", (40, 20)), ("P", (20, 40)), ("1", (5, 5)), ("L", (8, 8)), ("CMYK", (9, 9))]
    ):
        Image.new(mode, size).save(tmp_path / f"{i}.{'tif' if mode == 'CMYK' else 'png'}")
    files = list_pictures([tmp_path])
    assert [f.name for f in files] == ["0.png", "1.png", "2.png", "3.png", "4.tif"]
    assert read_pictures(files, (8, 8, 1)).shape == (5, 8, 8, 1)
    assert read_pictures(files, (8, 8, 3)).shape == (5, 8, 8, 3)


def test_a_folder_of_class_folders_is_read_as_prepare_reads_it(tmp_path):
    for name in ("b/2.png", "a/1.png", "a/deep/0.png", ".hidden/3.png", "4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = [str(path.relative_to(tmp_path)) for path in list_pictures([tmp_path])]
    assert found == ["4.png", "a/1.png", "a/deep/0.png", "b/2.png"]


def test_crop_is_centred(tmp_path):
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_pictures([tmp_path / "wide.png"], (8, 8, 1)) == 200).all()


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"image .*bad.png: "):
        read_pictures([tmp_path / "bad.png"], (8, 8, 1))
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"image .*program.png: not an image of an accepted format"):
        read_pictures([tmp_path / "program.png"], (8, 8, 1))
    with pytest.raises(InputError, match="no such image"):
        list_pictures([tmp_path / "absent.png"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no images: .*\.jpg"):
        list_pictures([tmp_path / "empty"])
