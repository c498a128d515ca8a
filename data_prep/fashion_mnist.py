"""Fashion-MNIST, 28x28, gray: train[0:50000] is train, train[50000:60000] is valid, test is test.

From --source, else Debian's package dataset-fashion-mnist if it is installed, else downloaded. Source: H. Xiao,
K. Rasul, R. Vollgraf (2017), https://github.com/zalandoresearch/fashion-mnist.
"""

from __future__ import annotations

from pathlib import Path

from ali_fast.errors import InputError
from data_prep.download import Published, fetch
from data_prep.idx import read_idx
from data_prep.split import Split, in_memory

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
BASE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# sha256 of the files whose MD5 sums the authors publish in their README (8d4fb7e6..., 25c81989..., bef4ecab...,
# bb300cfd...).
FILES = {
    "train images": Published(
        "train-images-idx3-ubyte.gz",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        BASE,
    ),
    "train labels": Published(
        "train-labels-idx1-ubyte.gz",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        BASE,
    ),
    "test images": Published(
        "t10k-images-idx3-ubyte.gz",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        BASE,
    ),
    "test labels": Published(
        "t10k-labels-idx1-ubyte.gz",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        BASE,
    ),
}
# Of what is inside those files: Debian compresses them again, and one may have them unpacked.
SHAPES = {
    "train images": (60_000, 28, 28),
    "train labels": (60_000,),
    "test images": (10_000, 28, 28),
    "test labels": (10_000,),
}
CONTENT_SHA256 = {
    "train images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "test images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "test labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
BOUNDS = {"train": ("train", 0, 50_000), "valid": ("train", 50_000, 60_000), "test": ("test", 0, 10_000)}


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """`source`: the folder of the four files, gzipped or not. All of it is held in memory: 55 MB.

    Raises InputError: a file is not there, is not IDX of the right shape, or is not what was published.
    """
    if source is None and DEBIAN.is_dir():
        source = DEBIAN
    arrays, digests = {}, {}
    for part, file in FILES.items():
        path = fetch(file, downloads) if source is None else _find(source, file.name)
        arrays[part], digest = read_idx(path, SHAPES[part])
        if digest != CONTENT_SHA256[part]:
            raise InputError(f"{path}: it has Fashion-MNIST's form, but not its content (sha256 {digest})")
        digests[file.name.removesuffix(".gz")] = digest
    splits = {}
    for name, (part, low, high) in BOUNDS.items():
        images, labels = arrays[f"{part} images"], arrays[f"{part} labels"]
        splits[name] = in_memory(images[low:high, ..., None], labels[low:high], CLASSES, digests)
    return splits


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    raise InputError(f"--source {folder}: there is no {name} in it, nor {name.removesuffix('.gz')}")
