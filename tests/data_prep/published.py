"""Small files in exactly the formats data sets are published in, made without the code under test."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """A smooth colour picture with some noise and edges: compresses about as photographs do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.normal(0, 6, smooth.shape).astype(np.int16)
    noisy[height // 3 :, width // 2 :] = 255 - noisy[height // 3 :, width // 2 :]
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 92} if kind == "JPEG" else {}) | options)
    return out.getvalue()


def tar(members: dict[str, bytes], form: int = tarfile.GNU_FORMAT, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def deflated_zeros(size: int) -> bytes:
    """A raw deflate stream of `size` zeros (a multiple of 1 MiB), without deflating all of them."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + squeeze.flush()


# ------------------------------------------------------------------------------------------------------ CIFAR-10

CIFAR_FILES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]


def cifar10(records: int, seed: int = 0) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """(file name -> bytes, images uint8 [6 * records, 32, 32, 3], labels [6 * records])."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6 * records, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 6 * records)
    files = {}
    for number, name in enumerate(CIFAR_FILES):
        rows = range(number * records, (number + 1) * records)
        # label, then the red, green and blue planes, each row by row
        files[name] = b"".join(
            bytes([labels[i]]) + b"".join(images[i, :, :, c].tobytes() for c in range(3)) for i in rows
        )
    return files, images, labels


def cifar10_archive(files: dict[str, bytes]) -> bytes:
    """In an order of its own: an archive's is nobody's promise."""
    files = dict(reversed(files.items()))
    extra = {"batches.meta.txt": b"airplane\n", "readme.html": b"<html>"}
    return tar({f"cifar-10-batches-bin/{name}": data for name, data in (files | extra).items()}, mode="w:gz")


# ---------------------------------------------------------------------------------------------------------- .mat


def mat_element(kind: int, data: bytes) -> bytes:
    """A level-5 data element; up to four bytes share the tag, as MATLAB writes it."""
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat_matrix(name: str, kind: int, stored: int, shape: tuple[int, ...], data: bytes) -> bytes:
    body = mat_element(6, bytes([kind, 0, 0, 0, 0, 0, 0, 0])) + mat_element(5, struct.pack(f"<{len(shape)}i", *shape))
    return mat_element(14, body + mat_element(1, name.encode()) + mat_element(stored, data))


def mat_file(matrices: list[bytes], compress: bool = True) -> bytes:
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:07:22 2011".ljust(124) + b"\0\1IM"
    packed = [zlib.compress(matrix) for matrix in matrices] if compress else matrices
    return header + b"".join(struct.pack("<II", 15, len(p)) + p if compress else p for p in packed)


def svhn(count: int, seed: int = 0, compress: bool = True) -> tuple[bytes, np.ndarray, np.ndarray]:
    """(a .mat as MATLAB writes it, images uint8 [N, 32, 32, 3], labels [N] of 1 to 10).

    X is uint8 [32, 32, 3, N], y is double [N, 1], which MATLAB stores as uint8 where it fits.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(1, 11, count).astype(np.uint8)
    pixels = images.transpose(1, 2, 3, 0).tobytes(order="F")
    matrices = [
        mat_matrix("X", 9, 2, (32, 32, 3, count), pixels),
        mat_matrix("y", 6, 2, (count, 1), labels.tobytes()),
    ]
    return mat_file(matrices, compress), images, labels


# -------------------------------------------------------------------------------------------------------- CelebA

ATTRIBUTES = [f"Attribute_{number}" for number in range(40)]


def celeba(counts: tuple[int, int, int], seed: int = 0) -> tuple[dict[str, bytes], list[Image.Image], np.ndarray]:
    """(file name -> bytes of the zip and the two lists, images as they decode, attributes [N, 40] of 0 and 1)."""
    rng = np.random.default_rng(seed)
    count = sum(counts)
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    jpegs = [encode(photograph(seed + number, 178, 218)) for number in range(count)]
    attributes = rng.integers(0, 2, (count, 40))
    rows = [
        "{} {}".format(name, " ".join(f"{2 * a - 1:2d}" for a in row))
        for name, row in zip(names, attributes, strict=True)
    ]
    parts = np.repeat([0, 1, 2], counts)
    members = {"img_align_celeba/": b""} | {f"img_align_celeba/{n}": j for n, j in zip(names, jpegs, strict=True)}
    files = {
        "img_align_celeba.zip": zipped(members),
        "list_attr_celeba.txt": "\n".join([str(count), " ".join(ATTRIBUTES) + " ", *rows, ""]).encode(),
        "list_eval_partition.txt": "".join(f"{n} {p}\n" for n, p in zip(names, parts, strict=True)).encode(),
    }
    return files, [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs], attributes


# ------------------------------------------------------------------------------------------------------ ImageNet

WNIDS = ["n01440764", "n01443537", "n02105855"]
SYNSETS = {2: "n01440764", 3: "n01443537", 1: "n02105855", 1001: "n00001740"}  # IDs are not in the order of WNIDs


def imagenet_train(per_class: int, seed: int = 0) -> dict[str, dict[str, bytes]]:
    """WordNet id -> file name -> bytes; odd ones out among them as in the real set: gray, CMYK, a PNG called .JPEG."""
    train: dict[str, dict[str, bytes]] = {}
    for number, wnid in enumerate(WNIDS):
        train[wnid] = {}
        for index in range(per_class):
            image = photograph(seed + 100 * number + index, 500 if index % 2 else 375, 375 if index % 2 else 500)
            kind = "JPEG"
            if number == 2 and index < 3:
                image = [image.convert("L"), image.convert("CMYK"), image][index]
                kind = "PNG" if index == 2 else "JPEG"
            train[wnid][f"{wnid}_{10 * index + 26}.JPEG"] = encode(image, kind)
    return train


def imagenet_devkit(truth: list[int]) -> dict[str, bytes]:
    """Member name -> bytes of the development kit; meta.mat with the published fields."""
    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    synsets = np.zeros((len(SYNSETS), 1), [(field, "O") for field in fields])
    for row, (number, wnid) in enumerate(SYNSETS.items()):
        inner = number > 1000
        children = np.array([[1.0, 2.0]]) if inner else np.zeros((0, 0))
        synsets[row, 0] = (float(number), wnid, "tench, Tinca", "a fish", 2.0 * inner, children, 1.0 * inner, 1300.0)
    out = io.BytesIO()
    scipy.io.savemat(out, {"synsets": synsets}, do_compression=True)
    return {
        "ILSVRC2012_devkit_t12/data/meta.mat": out.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
        "ILSVRC2012_devkit_t12/readme.txt": b"readme",
    }


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
