"""The classes of ImageNet's validation images, from ILSVRC2012_devkit_t12: the ground truth and the synsets' table.

data/ILSVRC2012_validation_ground_truth.txt has one ILSVRC2012_ID (1 to 1000) a line, in the images' order;
data/meta.mat has `synsets`, structures that give each ID its WordNet id (WNID); IDs above 1000 are inner nodes.
"""

from __future__ import annotations

import io
from pathlib import Path

from ali_fast.errors import InputError
from data_prep.archives import open_gzip, read_range, tar_ranges
from data_prep.matfile import variables

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
MAX_FILE_BYTES, MAX_ARCHIVE_BYTES = 1 << 24, 1 << 27  # real ones: 0.5 MB, 4 MB unpacked
MAX_SYNSETS = 10_000


def validation_classes(folder: Path) -> list[str]:
    """The WordNet id of each validation image, in order; the development kit is in `folder`, packed or unpacked.

    Raises InputError: not there, or not what it should be.
    """
    files = _files(folder)
    synsets = parse_synsets(files[META])
    return parse_ground_truth(files[TRUTH], synsets)


def _files(folder: Path) -> dict[str, bytes]:
    unpacked = folder / ARCHIVE.removesuffix(".tar.gz")
    if unpacked.is_dir():
        for name in (META, TRUTH):
            path = unpacked / name
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                raise InputError(f"{path}: not there, or above {MAX_FILE_BYTES} bytes")
        return {name: (unpacked / name).read_bytes() for name in (META, TRUTH)}
    path = folder / ARCHIVE
    if not path.is_file():
        raise InputError(f"{folder}: validation images without class folders need {ARCHIVE} beside them")
    found = {}
    with open_gzip(path) as file:
        for member in tar_ranges(file, ARCHIVE, end=MAX_ARCHIVE_BYTES):
            for name in (META, TRUTH):
                if member.name.endswith("/" + name):
                    if member.size > MAX_FILE_BYTES:
                        raise InputError(f"{ARCHIVE}: {member.name} of {member.size} bytes")
                    found[name] = read_range(file, member, ARCHIVE)
    if len(found) != 2:
        raise InputError(f"{path}: not both of {META} and {TRUTH} in it")
    return found


def parse_synsets(mat: bytes) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of meta.mat."""
    synsets: dict[int, str] = {}
    for variable in variables(io.BytesIO(mat), "meta.mat"):
        if variable.name != "synsets":
            continue
        number = None
        for field, value in variable.structs(MAX_SYNSETS):
            if field == "ILSVRC2012_ID":
                number = value.values(1)
            elif field == "WNID" and number is not None and number.size:
                synsets[int(number.flat[0])] = value.text(64)
    if not synsets:
        raise InputError("meta.mat: no synsets with ILSVRC2012_ID and WNID in it")
    return synsets


def parse_ground_truth(text: bytes, synsets: dict[int, str]) -> list[str]:
    """The WNID of each line's ILSVRC2012_ID."""
    classes = []
    for number, line in enumerate(text.split(), 1):
        wnid = synsets.get(int(line)) if line.isdigit() and len(line) <= 9 else None
        if wnid is None:
            raise InputError(f"{TRUTH}, line {number}: {line[:20]!r} is not an ILSVRC2012_ID of meta.mat")
        classes.append(wnid)
    return classes
