"""What a prepared data set is, by name: the contract of its writer and its readers. Standard library only.

A split is DATA_DIR/NAME/SPLIT.beton (FFCV's format, version 2) and SPLIT.json, its manifest. The manifest is put in
place last: a beton without one is an unfinished one.

Fields, in the file's order:
    image       uint8 [H, W, C], gray images with C = 1            sets of images
    x0, x1      float64 each                                       sets of points (the 2-D mixture)
    label       int64 in [0, len(classes))                         sets with classes
    attributes  uint8 [A], 0 or 1                                  sets with attributes (CelebA's 40)
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ali_fast.errors import InputError

VERSION = 1
MAX_MANIFEST_BYTES = 1 << 24  # ImageNet's, with a hash of each source, takes some kilobytes


class NotPreparedError(InputError):
    """The split, or its manifest, is not there: preparing it would be right."""


class DamagedError(InputError):
    """The split is there but not whole. It is never rebuilt without being asked for; the message says how to ask."""


class Field(NamedTuple):
    """What the file has of each sample under a name: an "array" of uint8, an "int" (int64) or a "float" (float64)."""

    name: str
    kind: Literal["array", "int", "float"]
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Bytes a sample."""
        return math.prod(self.shape) if self.kind == "array" else 8

    @property
    def type(self) -> str:
        """As manifests say it, e.g. "uint8[32, 32, 3]"."""
        return {"array": f"uint8{list(self.shape)}", "int": "int64", "float": "float64"}[self.kind]


@dataclass(frozen=True)
class Manifest:
    """What one beton holds. `shape` is (H, W, C) for images and (2,) for points; `bytes` is the beton's size."""

    dataset: str
    split: str
    count: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    bytes: int
    sha256: str
    source_sha256: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """What `prepare` was asked for beyond the data set's name, e.g. a folder's image size."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """In the file's order."""
        points = self.shape == (2,)
        fields = [Field("x0", "float"), Field("x1", "float")] if points else [Field("image", "array", self.shape)]
        if self.classes:
            fields.append(Field("label", "int"))
        if self.attributes:
            fields.append(Field("attributes", "array", (len(self.attributes),)))
        return tuple(fields)

    def to_json(self) -> str:
        """As it is written beside the beton."""
        values = {"format": "ali-fast beton", "version": VERSION} | dataclasses.asdict(self)
        return json.dumps(values | {"fields": _types(self.fields)}, indent=2) + "\n"


def _types(fields: tuple[Field, ...]) -> dict[str, str]:
    return {field.name: field.type for field in fields}


def beton_path(data_dir: Path, dataset: str, split: str) -> Path:
    """DATA_DIR/NAME/SPLIT.beton."""
    return data_dir / dataset / f"{split}.beton"


def manifest_path(beton: Path) -> Path:
    """The manifest beside a beton."""
    return beton.with_suffix(".json")


TO_BE_GIVEN = {
    "celeba": "--source FOLDER",
    "imagenet64": "--source FOLDER",
    "folder": "--source FOLDER --preset PRESET",
}
"""What `prepare` cannot know: where the files are that have no public address, and what a folder is for."""


def prepare_command(beton: Path, *options: str, seed: int | None = None) -> str:
    """The command line that makes this beton (with `--force`: makes it anew).

    seed: of a folder; by default its manifest's, where that can be read.
    """
    folder = beton.absolute().parent
    words = ["ali-fast prepare", folder.name, *options]
    if folder.name in TO_BE_GIVEN:
        words.append(TO_BE_GIVEN[folder.name])
    if seed := _seed(beton) if seed is None else seed:
        words.append(f"--seed {seed}")
    if folder.parent != Path("data").absolute():
        words.append(f"--data-dir {shlex.quote(str(folder.parent))}")
    return " ".join(words)


@contextmanager
def knowing(*, source: Path | None = None, preset: str | None = None) -> Iterator[None]:
    """What is known of TO_BE_GIVEN stands in the command lines of the InputErrors that are raised inside."""
    try:
        yield
    except InputError as error:
        message = str(error)
        for word, known in (("--source FOLDER", source), ("--preset PRESET", preset)):
            if known is not None:
                message = message.replace(word, f"{word.split()[0]} {shlex.quote(str(known))}")
        error.args = (message,)
        raise


def _seed(beton: Path) -> int | None:
    path = manifest_path(beton)
    try:
        seed = json.loads(path.read_bytes())["options"]["seed"] if path.stat().st_size <= MAX_MANIFEST_BYTES else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # json's, of what is nested deeply
        return None
    return seed if isinstance(seed, int) else None


def damaged(beton: Path, fault: str) -> DamagedError:
    """The error for a split that is there but cannot be trusted: the file, the fault, and the line that mends it."""
    return DamagedError(f"{beton}: {fault}; mend it with: {prepare_command(beton, '--force')}")


def read_manifest(beton: Path) -> Manifest:
    """The manifest beside `beton`, checked. Raises NotPreparedError if there is none, DamagedError if it is wrong."""
    path = manifest_path(beton)
    try:
        with path.open("rb") as file:
            too_large = os.fstat(file.fileno()).st_size > MAX_MANIFEST_BYTES
            raw = b"" if too_large else file.read()
    except FileNotFoundError:
        raise NotPreparedError(f"{path} is not there; make it with: {prepare_command(beton)}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        if too_large:
            raise _FaultError("too large for a manifest")
        return _parse(raw, dataset=beton.absolute().parent.name, split=beton.stem)
    except _FaultError as fault:
        raise DamagedError(f"{path}: {fault}; mend it with: {prepare_command(beton, '--force')}") from None


class _FaultError(Exception):
    pass


def _parse(raw: bytes, dataset: str, split: str) -> Manifest:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        raise _FaultError("not JSON") from None
    if not isinstance(values, dict) or values.get("format") != "ali-fast beton":
        raise _FaultError("not a manifest of ali-fast")
    if values.get("version") != VERSION:
        raise _FaultError(f"manifest version {values.get('version')!r:.40}, this program reads {VERSION}")
    for name, found, wanted in (
        ("data set", values.get("dataset"), dataset),
        ("split", values.get("split"), split),
    ):
        if found != wanted:
            raise _FaultError(f"is of another {name}: {found!r:.80}, not {wanted!r}")

    def is_count(value: object) -> bool:
        return type(value) is int and 0 < value < 1 << 48

    def is_names(value: object) -> bool:
        return isinstance(value, list) and len(value) <= 1 << 16 and all(isinstance(name, str) for name in value)

    def is_hash(value: object) -> bool:
        return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None

    def is_shape(value: object) -> bool:
        if not isinstance(value, list) or not all(type(n) is int and 0 < n <= 1 << 16 for n in value):
            return False
        return value == [2] or (len(value) == 3 and math.prod(value) <= 1 << 31)

    def is_hashes(value: object) -> bool:
        return isinstance(value, dict) and all(map(is_hash, value.values()))

    checks: dict[str, Callable[[object], bool]] = {
        "count": is_count,
        "shape": is_shape,
        "classes": is_names,
        "attributes": is_names,
        "bytes": is_count,
        "sha256": is_hash,
        "source_sha256": is_hashes,
        "options": lambda value: isinstance(value, dict),
    }
    for name, check in checks.items():
        if not check(values.get(name)):
            raise _FaultError(f"its {name!r} is wrong: {values.get(name)!r:.80}")
    manifest = Manifest(
        dataset=dataset,
        split=split,
        count=values["count"],
        shape=tuple(values["shape"]),
        classes=tuple(values["classes"]),
        attributes=tuple(values["attributes"]),
        bytes=values["bytes"],
        sha256=values["sha256"],
        source_sha256=values["source_sha256"],
        options=values["options"],
    )
    if values.get("fields") != _types(manifest.fields):
        raise _FaultError(f"its 'fields' do not follow from the rest: {values.get('fields')!r:.200}")
    return manifest
