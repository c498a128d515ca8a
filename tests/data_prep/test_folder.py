import hashlib
import os
import pickle
import re

import numpy as np
import published
import pytest
from PIL import Image

from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from ali_fast.pictures import list_pictures, read_pictures
from data_prep import chunks, folder, prepare

OPTIONS = {"size": 16}


def png(color: tuple[int, int, int], width: int = 20, height: int = 14) -> bytes:
    return published.encode(Image.new("RGB", (width, height), color), "PNG")


def contents(split) -> list[tuple]:
    return [(tuple(s.image[0, 0].tolist()), s.label) for s in map(split.read, range(split.count))]


def test_class_folders_become_labels_and_nothing_is_lost(tmp_path):
    files = {
        f"{name}/deep/{n}.png" if n % 2 else f"{name}/{n}.PNG": png((value, n, 0), 10 + n, 30)
        for value, name in enumerate(["ants", "bees", "crows"])
        for n in range(10)
    }
    junk = {"notes.txt": b"", ".hidden.png": b"", "ants/.DS_Store": b"", "__MACOSX/x.png": b"", "bees/Thumbs.db": b""}
    source = published.put(tmp_path / "s", files | junk)
    splits = folder.open_source(source, tmp_path / "d", **OPTIONS)
    assert {name: split.count for name, split in splits.items()} == {"train": 24, "valid": 3, "test": 3}
    seen = []
    for split in splits.values():
        assert split.classes == ("ants", "bees", "crows")
        assert split.image_shape == (16, 16, 3)
        seen += contents(pickle.loads(pickle.dumps(split)))
    assert sorted(seen) == sorted(((value, n, 0), value) for value in range(3) for n in range(10))


def test_the_split_follows_the_seed_and_nothing_else(tmp_path):
    source = published.put(tmp_path / "s", {f"{n:02d}.png": png((n, 0, 0)) for n in range(40)})
    again = published.put(tmp_path / "t", {f"{n:02d}.png": png((n, 0, 0)) for n in reversed(range(40))})

    def split(path, **options):
        return {k: contents(v) for k, v in folder.open_source(path, tmp_path, **OPTIONS | options).items()}

    first = split(source)
    assert first == split(again)
    assert first != split(source, seed=1)
    assert [len(part) for part in first.values()] == [32, 4, 4]
    # The stated rule: sorted by path, shuffled by the seed, then test, valid, train.
    order = np.random.default_rng(0).permutation(40)
    assert [pixel[0] for pixel, _ in first["test"] + first["valid"] + first["train"]] == order.tolist()


@pytest.mark.parametrize(
    ("count", "counts"), [(3, (1, 1, 1)), (14, (12, 1, 1)), (15, (11, 2, 2)), (110, (88, 11, 11)), (130, (104, 13, 13))]
)
def test_any_images_will_do_that_leave_one_to_train_on(tmp_path, count, counts):
    source = published.put(tmp_path / "s", {f"{n}.png": b"" for n in range(count)})
    assert tuple(split.count for split in folder.open_source(source, tmp_path, **OPTIONS).values()) == counts


def test_a_batch_that_the_images_do_not_fill_is_the_loaders_to_refuse(tmp_path):
    source = published.put(tmp_path / "s", {f"{n}.png": png((n, 0, 0)) for n in range(110)})
    train, *_ = prepare("folder", source=source, data_dir=tmp_path, size=4)
    path = beton_path(tmp_path, "folder", train.split)
    assert len(BetonLoader(path, batch_size=50)) == 1
    with pytest.raises(InputError, match=r"--batch-size 100: larger than .* 88 samples; take at most 88"):
        BetonLoader(path, batch_size=100)


def test_mixed_sizes_and_modes_and_one_channel(tmp_path):
    source = published.put(
        tmp_path,
        {
            "a.png": png((10, 20, 30), 300, 20),
            "b.jpg": published.encode(Image.new("CMYK", (5, 5), (0, 0, 0, 0))),
            "c.gif": published.encode(Image.new("P", (64, 65)), "GIF"),
            "d.tiff": published.encode(Image.new("I;16", (30, 40), 257 * 5), "TIFF"),
            "e.png": published.encode(Image.new("RGBA", (30, 40), (0, 0, 0, 0)), "PNG"),
            "f.webp": published.encode(Image.new("L", (200, 1)), "WEBP"),
        },
    )
    for channels in (1, 3):
        for split in folder.open_source(source, tmp_path, size=28, channels=channels).values():
            for index in range(split.count):
                sample = split.read(index)
                assert sample.image.shape == (28, 28, channels)
                assert sample.label is None
            assert split.classes == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_trained_model_is_given_the_pixels_it_was_trained_on(tmp_path, channels):
    """`encode` and its like read an image file as `prepare folder` does."""
    photo, exif = published.photograph(5, 90, 60), Image.Exif()
    exif[0x0112] = 6
    deep = np.random.default_rng(0).integers(0, 1 << 16, (30, 40), dtype=np.uint16)
    files = {
        "deep.png": published.encode(Image.fromarray(deep), "PNG"),
        "clear.png": published.encode(Image.merge("RGBA", (*photo.split(), photo.convert("L"))), "PNG"),
        "turned.jpg": published.encode(photo, exif=exif),
        "large.jpg": published.encode(published.photograph(6, 700, 500)),
        "small.webp": published.encode(published.photograph(7, 9, 11), "WEBP", lossless=True),
        "palette.GIF": published.encode(photo.quantize(16), "GIF"),
        "._deep.png": b"a Mac's notes",
        ".hidden.png": b"",
        "notes.txt": b"",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
    }
    source = published.put(tmp_path / "s", files)
    prepared = {}
    for split in folder.open_source(source, tmp_path, size=16, channels=channels).values():
        prepared |= {split.name(i): split.read(i).image for i in range(split.count)}
    found = list_pictures([source])
    assert [file.name for file in found] == sorted(prepared)
    for file, pixels in zip(found, read_pictures(found, (16, 16, channels)), strict=True):
        assert np.array_equal(pixels, prepared[file.name]), file.name


def test_orientation_is_applied(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    data = published.encode(Image.fromarray(pixels), "PNG", exif=exif)
    source = published.put(tmp_path, {f"{n}.png": data for n in range(3)})
    image = folder.open_source(source, tmp_path, size=8)["train"].read(0).image
    assert image[0].max() == 0
    assert image[-1].min() == 255


def test_links_in_circles_are_followed_once(tmp_path):
    source = published.put(tmp_path / "s", {f"a/{n}.png": png((n, 0, 0)) for n in range(12)})
    os.symlink(source, source / "a" / "again")
    os.symlink(tmp_path / "elsewhere", source / "b")
    published.put(tmp_path / "elsewhere", {"x.png": png((99, 0, 0))})
    os.symlink(tmp_path / "absent.png", source / "a" / "broken.png")
    os.mkfifo(source / "a" / "pipe.png")
    splits = folder.open_source(source, tmp_path, **OPTIONS)
    assert sum(split.count for split in splits.values()) == 13
    assert splits["train"].classes == ("a", "b")


def test_a_source_is_known_by_the_names_sizes_and_bytes_of_its_images(tmp_path):
    pairs = [(f"{name}/{n}.png", png((n, 0, 0))) for name in "ab" for n in range(3)]
    digests = folder.open_source(published.put(tmp_path, dict(pairs)), tmp_path, **OPTIONS)["train"].source_sha256
    listing = b"".join(b"%s\0%d\n" % (name.encode(), len(data)) for name, data in pairs)
    contents = b"".join(name.encode() + b"\0" + hashlib.sha256(data).digest() for name, data in pairs)
    assert digests == {
        "listing": hashlib.sha256(listing).hexdigest(),
        "contents": hashlib.sha256(contents).hexdigest(),
    }


def test_names_that_are_not_unicode(tmp_path, capsys):
    """capsys, as a terminal under en_US.UTF-8, takes no surrogates."""
    tmp_path = tmp_path / os.fsdecode(b"caf\xe9")
    tmp_path.mkdir()
    for number in range(12):
        (tmp_path / os.fsdecode(b"caf\xe9 \n%d.png" % number)).write_bytes(png((number, 0, 0)))
    splits = folder.open_source(tmp_path, tmp_path, **OPTIONS)
    assert "reading 12 images of " in (out := capsys.readouterr().out)
    assert "caf? for their sha256" in out
    assert sorted(p[0] for s in splits.values() for p, _ in contents(s)) == list(range(12))
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^image caf\? \?\d+.png: [^\n]*$"):
        contents(splits["train"])


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"notes.txt": b""}, {}, "not one image in it; files ending in .jpg"),
        ({}, {}, "not one image in it"),
        ({f"{n}.png": b"" for n in range(2)}, {}, r"too few images \(2\): one each to train on"),
        ({"0.png": b""}, {}, r"too few images \(1\): one each"),
        ({"0.png": b"", "a/1.png": b"", "b/1.png": b""}, {}, r"both in it \(0.png\) and in sub-folders \(a\)"),
        ({"0.png": b""}, {"size": None}, "folder needs --preset, the one to be trained"),
        ({"0.png": b""}, {"size": 0}, "size 0, channels 3: 1 to 1024"),
        ({"0.png": b""}, {"channels": 2}, "size 16, channels 2: "),
        ({"0.png": b""}, {"seed": -1}, "seed -1: 0 or more"),
    ],
)
def test_wrong_folders_and_options(tmp_path, files, options, message):
    source = published.put(tmp_path / "s", {"sub/readme": b""} | files)
    with pytest.raises(InputError, match=message):
        folder.open_source(source, tmp_path, **OPTIONS | options)


@pytest.mark.parametrize("slow", [False, True])
def test_all_broken_images_are_told_at_once(tmp_path, slow, monkeypatch):
    """In one process and in several, over all splits; what lies in other data sets ends with the first."""
    monkeypatch.setattr(chunks, "WORTH_WORKERS_S", -1.0 if slow else 1e9)
    source = published.put(tmp_path / "s", {f"a/{n:03}.png": png((n, 0, 0)) for n in range(200)})
    listed = tmp_path / "data" / "folder" / "unreadable.txt"
    bad = [f"a/{n:03}.png" for n in (3, 50, 51, 120, 199)]
    for name in bad[:3]:
        (source / name).write_bytes(png((7, 0, 0))[:45])
    (source / bad[3]).write_bytes(b"")
    (source / bad[4]).write_bytes(b"P6 9 9 255\n")
    with pytest.raises(InputError) as error:
        prepare("folder", source=source, data_dir=tmp_path / "data", **OPTIONS)
    begins = r"5 of 200 images cannot be read: a/003.png: [^;]*; a/050.png: [^;]*; a/051.png: [^;]*; and so on: "
    assert re.match(begins + "all of them are listed in " + re.escape(str(listed)), str(error.value))
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()] == bad
    assert [path.name for path in listed.parent.glob("*.beton*")] == []

    for name in bad[:3]:
        (source / name).unlink()
    with pytest.raises(InputError, match=r"2 of 197 images cannot be read: a/120.png: .*; mend them, or move them"):
        prepare("folder", source=source, data_dir=tmp_path / "data", **OPTIONS)
    assert not listed.exists()
    for name in bad[3:]:
        (source / name).unlink()
    made = prepare("folder", source=source, data_dir=tmp_path / "data", **OPTIONS)
    assert sum(manifest.count for manifest in made) == 195


def test_a_broken_image_is_named(tmp_path):
    source = published.put(tmp_path / "s", {f"a/{n}.png": png((n, 0, 0)) for n in range(12)})
    (source / "a" / "7.png").write_bytes(png((7, 0, 0))[:45])
    with pytest.raises(InputError, match=r"image a/7.png: "):
        for split in folder.open_source(source, tmp_path, **OPTIONS).values():
            contents(split)
    (source / "a" / "7.png").unlink()
    with pytest.raises(InputError, match=r"^--source|folder needs --source"):
        folder.open_source(tmp_path / "absent", tmp_path, **OPTIONS)
    with pytest.raises(InputError, match="folder needs --source"):
        folder.open_source(None, tmp_path, **OPTIONS)
