"""The file format against FFCV itself, and every damage of a file refused before FFCV sees it."""

import dataclasses
import multiprocessing
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest

from ali_fast.data import beton as format_
from ali_fast.data import schema
from ali_fast.data.beton import Beton
from ali_fast.data.schema import DamagedError, Field, NotPreparedError

HEADER = struct.Struct("<HHIQQ")
METADATA_AT = 24 + 2 * 1041  # of a set with two fields
FORMS = {"labelled": {}, "bare": {"classes": 0}, "marked": {"attributes": 5}, "points": {"shape": (2,)}}


def fit_manifest(path, **changes):
    """Make the manifest follow the file's size, as a file damaged before its manifest was made would have it."""
    manifest = dataclasses.replace(schema.read_manifest(path), bytes=path.stat().st_size, **changes)
    schema.manifest_path(path).write_text(manifest.to_json())


def patch(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def table_start(path):
    return HEADER.unpack(path.read_bytes()[:24])[4]


@pytest.mark.parametrize("form", FORMS)
def test_reads_what_was_written(make, form):
    made = make(**FORMS[form])
    beton = Beton(made.path)
    beton.verify()
    if form == "points":
        assert np.array_equal(np.stack([beton.metadata["x0"], beton.metadata["x1"]], 1), made.images)
    else:
        assert np.array_equal(beton.arrays("image", 0, 103), made.images)
        assert np.array_equal(beton.arrays("image", 50, 60), made.images[50:60])
        assert beton.arrays("image", 7, 7).shape == (0, 6, 5, 3)
    if made.labels is not None:
        assert np.array_equal(beton.metadata["label"], made.labels)
    if made.attributes is not None:
        assert np.array_equal(beton.arrays("attributes", 3, 99), made.attributes[3:99])


@pytest.mark.parametrize("count", [1, 40, 41, 42, 130])
def test_layout_never_crosses_a_page(count):
    fields = [Field("image", "array", (100,)), Field("label", "int"), Field("attributes", "array", (3,))]
    offsets, end = format_.layout(count, fields, page_bytes=8192)
    offsets = offsets.astype(int)
    start = 24 + 3 * 1041 + count * 24
    assert offsets[0] >= start
    assert end == offsets[-1] + 103
    assert (np.diff(offsets) >= 103).all()
    assert (offsets // 8192 == (offsets + 102) // 8192).all()
    assert np.array_equal(np.diff(offsets) > 103, np.diff(offsets // 8192) > 0)  # gaps at page ends only


def test_pages_and_reading_across_their_gaps(make, monkeypatch):
    made = make(count=60, shape=(300, 300, 3), attributes=7)  # 16 MB: two pages
    beton = Beton(made.path)
    assert len(np.unique(np.diff(beton.metadata["image"].astype(int)))) == 2
    assert np.array_equal(beton.arrays("image", 0, 60), made.images)
    assert np.array_equal(beton.arrays("attributes", 0, 60), made.attributes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("os_cache", [True, False])
def test_stock_ffcv_reads_it(make, within, form, os_cache):
    from ffcv.loader import Loader, OrderOption

    if form == "points" and not os_cache:
        pytest.skip("FFCV 1.0.2 cannot page a file of scalars under NumPy 2")
    made = make(**FORMS[form])
    loader = Loader(
        str(made.path), 20, num_workers=1, os_cache=os_cache, order=OrderOption.RANDOM, seed=5, drop_last=False
    )
    with within(120):
        arrays = [[field.numpy().copy() for field in batch] for batch in loader]
    columns = [np.concatenate(column) for column in zip(*arrays, strict=True)]
    order = np.random.default_rng(5).permutation(103)
    wanted = [*made.images.T[..., None]] if form == "points" else [made.images]
    wanted += [made.labels[:, None]] if made.labels is not None else []
    wanted += [made.attributes] if made.attributes is not None else []
    for column, whole in zip(columns, wanted, strict=True):
        assert np.array_equal(column, whole[order])


def test_reads_what_stock_ffcv_wrote(make, within):
    """Two workers leave the samples of FFCV's own files in blocks of any order. It waits for ever for one that died."""
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    made = make(count=1000)
    samples = list(zip(made.images, made.labels, strict=True))
    fields = {"image": NDArrayField(np.dtype("u1"), (6, 5, 3)), "label": IntField()}
    writer = DatasetWriter(str(made.path), fields, page_size=1 << 21, num_workers=2)
    try:
        with within(120):
            writer.from_indexed_dataset(samples, chunksize=64)
    finally:
        for process in multiprocessing.active_children():
            process.kill()
    fit_manifest(made.path)
    beton = Beton(made.path)
    assert np.array_equal(beton.arrays("image", 0, 1000), made.images)
    assert np.array_equal(beton.metadata["label"], made.labels)


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


def swap_offsets(path):
    raw = path.read_bytes()
    a, b = raw[METADATA_AT : METADATA_AT + 8], raw[METADATA_AT + 16 : METADATA_AT + 24]
    patch(path, METADATA_AT, b)
    patch(path, METADATA_AT + 16, a)


def move_image(path, sample, offset):
    """Metadata and table agree, and are both wrong."""
    patch(path, METADATA_AT + 16 * sample, u64(offset))
    patch(path, table_start(path) + 24 * sample + 8, u64(offset))


def u64(value):
    return struct.pack("<Q", value)


DAMAGE = {
    "1,000 bytes missing": (lambda p: cut(p, p.stat().st_size - 1000), "cut short"),
    "cut before the allocation table": (lambda p: cut(p, table_start(p) - 10), "cut short"),
    "one byte too many": (lambda p: patch(p, p.stat().st_size, b"\0"), "too long"),
    "empty": (lambda p: cut(p, 0), "cut short: 0 bytes"),
    "random bytes": (lambda p: p.write_bytes(random.Random(0).randbytes(p.stat().st_size)), "header"),
    "a zip": (lambda p: p.write_bytes(b"PK\3\4" + bytes(p.stat().st_size - 4)), "did not finish|header"),
    "writer killed before the end": (lambda p: patch(p, 16, u64(0)), "did not finish"),
    "other version": (lambda p: patch(p, 0, b"\3\0"), "version is 3, should be 2"),
    "more samples": (lambda p: patch(p, 8, u64(104)), "samples is 104, should be 103"),
    "page size": (lambda p: patch(p, 4, struct.pack("<I", 12345)), "page size 12345"),
    "table elsewhere": (lambda p: patch(p, 16, u64(table_start(p) - 24)), "allocations"),
    "field type": (lambda p: patch(p, 24, b"\2"), "fields are not those"),
    "field name": (lambda p: patch(p, 26, b"X"), "fields are not those"),
    "shape": (lambda p: patch(p, 24 + 17, b"\7"), "fields are not those"),
    "data offset outside": (lambda p: patch(p, METADATA_AT, u64(1 << 60)), "sample 0: its image"),
    "data offset between samples": (lambda p: patch(p, METADATA_AT, u64(METADATA_AT + 103 * 16 + 1)), "sample 0"),
    "two samples' offsets swapped": (swap_offsets, "sample 0: its image is not in"),
    "label": (lambda p: patch(p, METADATA_AT + 8, u64(10)), "sample 0: label 10 of 10 classes"),
    "negative label": (lambda p: patch(p, METADATA_AT + 24, b"\xff" * 8), "sample 1: label -1"),
    "allocation larger than the image": (lambda p: patch(p, table_start(p) + 16, u64(91)), "overlaps"),
    "allocation smaller": (lambda p: patch(p, table_start(p) + 16, u64(89)), "sample 0"),
    "last allocation into the table": (lambda p: patch(p, p.stat().st_size - 8, u64(91)), "outside"),
    "allocation's end wraps around": (lambda p: patch(p, p.stat().st_size - 16, b"\xff" * 16), "outside"),
    "image in the header": (lambda p: move_image(p, 0, 0), "outside the data"),
    "image around the end of all addresses": (lambda p: move_image(p, 102, (1 << 64) - 10), "outside the data"),
    "allocation of another sample": (lambda p: patch(p, table_start(p), u64(1)), "sample 0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("fits", [False, True], ids=["manifest as it was", "manifest fitted"])
def test_damage_is_refused_at_once(make, damage, fits):
    made = make()
    harm, says = DAMAGE[damage]
    harm(made.path)
    if fits and made.path.stat().st_size:
        fit_manifest(made.path)
        says = "train"  # what is wrong then shows elsewhere
    began = time.process_time()
    with pytest.raises(DamagedError, match=says) as error:
        Beton(made.path)
    assert time.process_time() - began < 0.5
    assert str(made.path) in str(error.value)
    assert f"mend it with: ali-fast prepare made --force --data-dir {made.path.parents[1]}" in str(error.value)


def test_attributes_that_point_at_the_image(make):
    made = make(attributes=90)  # as many bytes as the image has, so that the table allows it
    metadata_at = METADATA_AT + 1041
    patch(made.path, metadata_at + 16, made.path.read_bytes()[metadata_at:][:8])
    with pytest.raises(DamagedError, match="entries of no sample"):
        Beton(made.path)


def test_points_must_be_finite(make):
    made = make(shape=(2,))
    patch(made.path, 24 + 3 * 1041 + 8, struct.pack("<d", float("nan")))
    with pytest.raises(DamagedError, match="sample 0: x1 is not finite"):
        Beton(made.path)


def test_a_changed_pixel_is_found_by_verify_only(make):
    made = make()
    patch(made.path, table_start(made.path) - 5, b"\xaa\xbb")
    beton = Beton(made.path)
    with pytest.raises(DamagedError, match="does not match the sha256"):
        beton.verify()


@pytest.mark.parametrize("suffix", [".beton", ".json"])
def test_missing(make, suffix):
    made = make()
    made.path.with_suffix(suffix).unlink()
    with pytest.raises(NotPreparedError, match=f"train{suffix} is not there; make it with: ali-fast prepare made"):
        Beton(made.path)


def test_a_folder_in_its_place(make):
    made = make()
    made.path.unlink()
    made.path.mkdir()
    with pytest.raises(DamagedError):
        Beton(made.path)


def test_manifest_and_file_are_read_as_a_pair(make, monkeypatch):
    """A beton renamed into place between opening it and reading the manifest is opened again."""
    made = make(seed=1)
    other = make(seed=2)
    old, new = made.path.with_name("old"), other.path.with_name("new")
    other.path.rename(new)
    new_manifest = schema.manifest_path(other.path).read_text()
    made = make(seed=1)
    made.path.rename(old)
    old.rename(made.path)
    read = schema.read_manifest

    def replaced_meanwhile(path):
        if new.exists():
            new.rename(path)
            schema.manifest_path(path).write_text(new_manifest)
        return read(path)

    monkeypatch.setattr(schema, "read_manifest", replaced_meanwhile)
    beton = Beton(made.path)
    beton.verify()
    assert np.array_equal(beton.arrays("image", 0, 103), other.images)


def test_a_million_images_are_checked_in_under_a_second(make, ram):
    """By a tenth of them, and a tenth of the time."""
    made = make(ram, count=100_000, shape=(1, 1, 1))

    def seconds():
        began = time.process_time()
        Beton(made.path)
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_fuzz(make, ram, form):
    """600 mutated files a form, half with a manifest that fits their size: refused by our error, or safe to read."""
    made = make(ram, count=40, **FORMS[form])
    original, manifest_text = made.path.read_bytes(), schema.manifest_path(made.path).read_text()
    rng = random.Random(form)
    numbers = [0, 1, 2, 24, 255, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, len(original), len(original) - 24]
    structure = [*range(24), *range(24, 24 + 60), *range(len(original) - 24 * 45, len(original))]
    accepted = 0
    for number in range(600):
        if number == 500:
            tracemalloc.start()
        raw = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.choice((rng.choice(structure) % len(raw), rng.randrange(len(raw)))) if raw else 0
            kind = rng.randrange(6)
            if kind == 0:
                raw[at : at + 1] = rng.randbytes(1)
            elif kind == 1:
                at -= at % 8
                raw[at : at + 8] = struct.pack("<Q", rng.choice(numbers))
            elif kind == 2:
                del raw[at:]
            elif kind == 3:
                raw[at:at] = rng.randbytes(rng.choice((1, 8, 24, 1000)))
            elif kind == 4:
                raw[at : at + 24], other = original[:24], raw[at : at + 24]
                raw[:24] = other.ljust(24, b"\0")
            else:
                del raw[at : at + rng.choice((1, 8, 24))]
        made.path.write_bytes(raw)
        schema.manifest_path(made.path).write_text(manifest_text)
        if number % 2 and raw:
            fit_manifest(made.path)
        try:
            beton = Beton(made.path)
        except DamagedError:
            continue
        accepted += 1
        for field in format_.arrays_of(beton.manifest.fields):
            arrays = beton.arrays(field.name, 0, 40)
            offsets = beton.metadata[field.name].astype(object)
            assert min(offsets) >= METADATA_AT - 1041
            assert max(offsets) + arrays[0].size <= len(raw) - 24 * 40
        if beton.manifest.classes:
            assert set(beton.metadata["label"]) <= set(range(10))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert 0 < accepted < 500
