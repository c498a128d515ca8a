import dataclasses
import json
import random

import pytest

from ali_fast.data import schema
from ali_fast.data.schema import DamagedError, Field, Manifest, NotPreparedError
from ali_fast.errors import InputError

MANIFEST = Manifest(
    dataset="made",
    split="train",
    count=7,
    shape=(4, 4, 1),
    classes=("a", "b"),
    attributes=("x", "y", "z"),
    bytes=12345,
    sha256="ab" * 32,
    source_sha256={"file": "01" * 32},
    options={"size": 4},
)
POINTS = Manifest("m", "train", 3, (2,), (), (), 1, "0" * 64)


@pytest.fixture
def beton(tmp_path):
    path = tmp_path / "made" / "train.beton"
    path.parent.mkdir()
    return path


def write(beton, text):
    schema.manifest_path(beton).write_text(text)


def test_json_round_trip(beton):
    write(beton, MANIFEST.to_json())
    assert schema.read_manifest(beton) == MANIFEST


def test_fields_in_file_order():
    image, attributes = Field("image", "array", (4, 4, 1)), Field("attributes", "array", (3,))
    assert MANIFEST.fields == (image, Field("label", "int", ()), attributes)
    assert [field.size for field in MANIFEST.fields] == [16, 8, 3]
    assert POINTS.fields == (Field("x0", "float", ()), Field("x1", "float", ()))


TEXT = """{
  "format": "ali-fast beton",
  "version": 1,
  "dataset": "made",
  "split": "train",
  "count": 7,
  "shape": [
    4,
    4,
    1
  ],
  "classes": [
    "a",
    "b"
  ],
  "attributes": [
    "x",
    "y",
    "z"
  ],
  "bytes": 12345,
  "sha256": "abababababababababababababababababababababababababababababababab",
  "source_sha256": {
    "file": "0101010101010101010101010101010101010101010101010101010101010101"
  },
  "options": {
    "size": 4
  },
  "fields": {
    "image": "uint8[4, 4, 1]",
    "label": "int64",
    "attributes": "uint8[3]"
  }
}
"""


def test_the_text_stays_what_older_versions_wrote():
    assert MANIFEST.to_json() == TEXT
    assert json.loads(POINTS.to_json())["fields"] == {"x0": "float64", "x1": "float64"}


def test_names_of_any_kind_are_kept_whatever_the_locale(beton):
    """A class is named by its folder, and a folder's name may be no Unicode."""
    named = dataclasses.replace(MANIFEST, classes=("größe", "caf\udce9"))
    assert named.to_json().isascii()
    write(beton, named.to_json())
    assert schema.read_manifest(beton) == named


def test_missing_manifest(beton):
    with pytest.raises(NotPreparedError, match=r"train\.json is not there; make it with: ali-fast prepare made"):
        schema.read_manifest(beton)


def test_command_names_another_data_dir_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = schema.prepare_command(schema.beton_path(schema.Path("data"), "digits", "train"), "--force")
    assert command == "ali-fast prepare digits --force"
    command = schema.prepare_command(schema.beton_path(schema.Path("else"), "digits", "train"))
    assert command == f"ali-fast prepare digits --data-dir {tmp_path}/else"
    command = schema.prepare_command(schema.beton_path(schema.Path("my data"), "folder", "train"), "--force")
    given = "--source FOLDER --preset PRESET"
    assert command == f"ali-fast prepare folder --force {given} --data-dir '{tmp_path}/my data'"


WRONG = {
    "version": (2, None, "1"),
    "format": ("other", None),
    "dataset": ("other", None, 3),
    "split": ("valid", None),
    "count": (0, -1, 1.5, True, "7", None, 1 << 60),
    "shape": ([], [4, 4], [0, 4, 1], [4, 4, 1.0], [1 << 17, 1, 1], [1 << 16, 1 << 16, 1 << 16], "4", None, [2, 2]),
    "classes": ("ab", [1, 2], None),
    "attributes": ({}, [None]),
    "bytes": (0, "12345", None, 1 << 70),
    "sha256": ("ab", "AB" * 32, "zz" * 32, None, 3),
    "source_sha256": ([], {"file": "1"}, None),
    "options": ([], None),
    "fields": ({}, {"image": "uint8[4, 4, 1]"}, None, []),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_named(beton, name):
    for value in WRONG[name]:
        write(beton, json.dumps(json.loads(MANIFEST.to_json()) | {name: value}))
        with pytest.raises(DamagedError, match=r"train\.json: .*; mend it with: ali-fast prepare made --force"):
            schema.read_manifest(beton)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"format": NaN', "\0", '{"count": 1e999}', "9" * 5000]
)
def test_what_is_no_manifest(beton, text):
    write(beton, text)
    with pytest.raises(DamagedError):
        schema.read_manifest(beton)


def test_not_text(beton):
    schema.manifest_path(beton).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedError, match="not JSON"):
        schema.read_manifest(beton)


def test_too_large(beton, monkeypatch):
    monkeypatch.setattr(schema, "MAX_MANIFEST_BYTES", 1000)
    write(beton, MANIFEST.to_json() + " " * 1000)
    with pytest.raises(DamagedError, match="too large"):
        schema.read_manifest(beton)


def test_unreadable(beton):
    schema.manifest_path(beton).mkdir()
    with pytest.raises(InputError, match="cannot read"):
        schema.read_manifest(beton)


def test_fuzz(ram):
    """3,000 mutated manifests: read as some manifest, or refused by our own error."""
    beton = ram / "made" / "train.beton"
    beton.parent.mkdir()
    rng = random.Random(0)
    text = MANIFEST.to_json().encode()
    tokens = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b"1",
        b"-",
        b"1e400",
        b"null",
        b"true",
        b"\\u0000",
        b"\xff",
        b"0" * 40,
    ]
    accepted = 0
    for _ in range(3000):
        raw = bytearray(text)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            at, kind = rng.randrange(len(raw)), rng.randrange(4)
            if kind == 0:
                raw[at] = rng.randrange(256)
            elif kind == 1:
                del raw[at : at + rng.choice((1, 3, 50))]
            elif kind == 2:
                raw[at:at] = rng.choice(tokens)
            else:
                raw[at : at + 1] = raw[rng.randrange(len(raw)) :][: rng.choice((1, 10, 200))]
        schema.manifest_path(beton).write_bytes(raw)
        try:
            manifest = schema.read_manifest(beton)
        except DamagedError:
            continue
        accepted += 1
        assert isinstance(manifest.count, int)
        assert len(manifest.sha256) == 64
    assert 0 < accepted < 1500
