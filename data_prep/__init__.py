"""From published data sets, or anyone's images, to DATA_DIR/NAME/SPLIT.beton with a manifest beside each.

`prepare` is what `ali-fast prepare` and `python -m data_prep` call. One module a source; each has
`open_source(source, downloads, **options) -> dict[str, Split]`, imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ali_fast.data import schema
from ali_fast.data.schema import Manifest
from ali_fast.errors import InputError

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
    other options (the message has the `--force` line), a full disk.
    """
    if dataset not in DATASETS:
        raise InputError(f"there is no data set {dataset!r}; there are: {', '.join(DATASETS)}")
    paths = [schema.beton_path(data_dir, dataset, split) for split in DATASETS[dataset]]
    options = {name: value for name, value in options.items() if value is not None}
    if check:
        return [_open(path, verify=True) for path in paths]
    if not force and not any(map(_is_missing, paths)):
        return [_kept(path, options) for path in paths]
    with _lock(data_dir / dataset):
        for leftover in (data_dir / dataset).glob("*.part"):
            leftover.unlink(missing_ok=True)
        # Again, now that nobody else is at work here: another process may just have made them.
        missing = [path for path in paths if force or _is_missing(path)]
        for path in paths:
            if path not in missing:
                _kept(path, options)
        if missing:
            _make(dataset, missing, source, data_dir, options)
        return [_open(path) for path in paths]


def _make(dataset: str, paths: list[Path], source: Path | None, data_dir: Path, options: dict[str, Any]) -> None:
    from data_prep.progress import Bar
    from data_prep.writer import write_split

    module = importlib.import_module(f"data_prep.{dataset.replace('-', '_')}")
    if source is not None and not source.exists():
        raise InputError(f"--source {source}: there is no such file or folder")
    splits = module.open_source(source, data_dir / dataset / "downloads", **options)
    assert set(splits) == set(DATASETS[dataset]), dataset
    for path in paths:
        split = splits[path.stem]
        with Bar(f"{dataset} {path.stem}", split.count) as progress:
            write_split(split, path, dataset=dataset, split_name=path.stem, options=options, progress=progress)


def _is_missing(path: Path) -> bool:
    return not path.exists() or not schema.manifest_path(path).exists()


def _open(path: Path, *, verify: bool = False) -> Manifest:
    from ali_fast.data.beton import Beton

    beton = Beton(path)
    if verify:
        beton.verify()
    beton.close()
    return beton.manifest


def _kept(path: Path, options: dict[str, Any]) -> Manifest:
    manifest = _open(path)
    for name, value in options.items():
        if manifest.options.get(name) != value:
            was = manifest.options.get(name, "the default")
            raise InputError(
                f"{path} was prepared with {name} = {was}, not {value}; "
                f"make it anew with: {schema.prepare_command(path, '--force')} --{name.replace('_', '-')} {value}"
            )
    return manifest


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
