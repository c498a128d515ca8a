"""From published data sets, or anyone's images, to DATA_DIR/NAME/SPLIT.beton with a manifest beside each.

`prepare` is what `ali-fast prepare` calls. One module a source; each has `open_source(source, downloads, **options) ->
dict[str, Split]`, imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ali_fast.data import schema
from ali_fast.data.schema import Manifest
from ali_fast.errors import InputError

if TYPE_CHECKING:
    from data_prep.split import Split

DATASETS: dict[str, tuple[str, ...]] = {
    "digits": ("train", "valid", "test"),
    "fashion-mnist": ("train", "valid", "test"),
    "cifar10": ("train", "valid", "test"),
    "svhn": ("train", "test", "extra"),
    "celeba": ("train", "valid", "test"),
    "imagenet64": ("train", "valid"),
    "folder": ("train", "valid", "test"),
    "mixture": ("train", "valid", "test"),
}
"""Each data set's splits."""
UNREADABLE = "unreadable.txt"
"""In a data set's folder: the images that could not be read, if they were many."""
DEFAULTS = {"seed": 0}
"""Of sources' options: not to give one is to give this."""


def prepare(
    dataset: str,
    *,
    source: Path | None = None,
    data_dir: Path = Path("data"),
    force: bool = False,
    check: bool = False,
    **options: Any,
) -> list[Manifest]:
    """Makes what is missing of a data set and returns its splits' manifests, in DATASETS' order.

    A split that is there is checked and kept; `force` makes all of them anew; `check` makes none, and reads every byte
    of those there against its sha256. Two calls at once: the second waits, and says so. `options` are the source's own.

    Raises InputError: an unknown data set, a source that is missing or wrong, a split that is damaged or was made with
    other options or from another source (the message has the `--force` line), a full disk.
    """
    if dataset not in DATASETS:
        raise InputError(f"there is no data set {dataset!r}; there are: {', '.join(DATASETS)}")
    if source is not None and not source.exists():
        raise InputError(f"--source {source}: there is no such file or folder")
    paths = [schema.beton_path(data_dir, dataset, split) for split in DATASETS[dataset]]
    options = {name: value for name, value in options.items() if value is not None}
    if check and force:
        raise InputError("--check makes nothing and --force makes all anew: give one of them")
    if check:
        for path in paths:
            _open(path, verify=True)
        return _kept(paths, source, options)
    if not force and not any(map(_is_missing, paths)):
        return _kept(paths, source, options)
    with _lock(data_dir / dataset):
        for leftover in (*(data_dir / dataset).glob("*.part"), data_dir / dataset / UNREADABLE):
            leftover.unlink(missing_ok=True)
        # Again, now that nobody else is at work here: another process may just have made them.
        missing = [path for path in paths if force or _is_missing(path)]
        if not missing:
            return _kept(paths, source, options)
        kept = [_open(path) for path in paths if path not in missing]
        _make(dataset, missing, kept, source, data_dir, options)
        return [_open(path) for path in paths]


def _make(
    dataset: str,
    paths: list[Path],
    kept: list[Manifest],
    source: Path | None,
    data_dir: Path,
    options: dict[str, Any],
) -> None:
    from data_prep.progress import Bar
    from data_prep.writer import write_splits

    splits = _open_source(dataset, source, data_dir, options)
    for manifest in kept:
        _check_same(data_dir, manifest, options, exactly=True)
        _check_same_source(data_dir, manifest, splits[manifest.split])
    with Bar() as progress:
        write_splits({path: splits[path.stem] for path in paths}, options=options, progress=progress)


def _open_source(dataset: str, source: Path | None, data_dir: Path, options: dict[str, Any]) -> dict[str, Split]:
    module = importlib.import_module(f"data_prep.{dataset.replace('-', '_')}")
    splits: dict[str, Split] = module.open_source(source, data_dir / dataset / "downloads", **options)
    assert set(splits) == set(DATASETS[dataset]), dataset
    return splits


def _is_missing(path: Path) -> bool:
    return not path.exists() or not schema.manifest_path(path).exists()


def _open(path: Path, *, verify: bool = False) -> Manifest:
    from ali_fast.data.beton import Beton

    beton = Beton(path)
    if verify:
        beton.verify()
    beton.close()
    return beton.manifest


def _kept(paths: list[Path], source: Path | None, options: dict[str, Any]) -> list[Manifest]:
    """The manifests of splits that are there, if they are what was asked for."""
    manifests = [_open(path) for path in paths]
    data_dir = paths[0].parents[1]
    for manifest in manifests:
        _check_same(data_dir, manifest, options)
    if source is not None and manifests[0].dataset == "folder":  # the others' sources are always the published ones
        splits = _open_source("folder", source, data_dir, manifests[0].options | options)
        for manifest in manifests:
            _check_same_source(data_dir, manifest, splits[manifest.split])
    return manifests


def _check_same(data_dir: Path, manifest: Manifest, options: dict[str, Any], exactly: bool = False) -> None:
    for name in [*options, *(manifest.options if exactly else ())]:
        was, now = (values.get(name, DEFAULTS.get(name, "by default")) for values in (manifest.options, options))
        if was != now:
            raise _made_otherwise(data_dir, manifest, f"with {name} {was}, not {now}", options.get("seed"))


def _check_same_source(data_dir: Path, manifest: Manifest, split: Split) -> None:
    was, now = manifest.source_sha256, split.source_sha256
    if was.keys() < now.keys() and was.items() <= now.items():  # a folder's, of names and sizes alone
        older = "by a version that noted only names and sizes of its files"
        raise _made_otherwise(data_dir, manifest, f"{older}; these files' are the same, their contents may not be")
    if was != now:
        raise _made_otherwise(data_dir, manifest, "from other files than these")


def _made_otherwise(data_dir: Path, manifest: Manifest, how: str, seed: int | None = None) -> InputError:
    path = schema.beton_path(data_dir, manifest.dataset, manifest.split)
    command = schema.prepare_command(path, "--force", seed=seed)
    return InputError(f"{path} was prepared {how}; make all anew with: {command}")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer at a time in a data set's folder. The system releases the lock of a process that was killed."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"another process is preparing {folder}; waiting for it", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; use another --data-dir") from None
    try:
        yield
    finally:
        lock.release()
