"""Published files: where they are, how large, by which digest known; fetched, resumed, checked, never waited for ever.

A download goes to NAME.part and takes its name only when its size and sha256 are the published ones. Interrupted, it
goes on where it stopped. Connecting, headers and name lookup get CONNECT_S seconds together, the data must flow at
LEAST_RATE bytes a second on average over STALL_S seconds, and a failure that may pass is tried ATTEMPTS times; the
count of attempts starts again after every CHUNK of progress. No answer or no route before the first byte is no
network, and is not tried again.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import queue
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ali_fast.data.beton import digest
from ali_fast.errors import InputError
from data_prep.printable import printable

CONNECT_S, STALL_S, LEAST_RATE, ATTEMPTS = 10.0, 30.0, 1024, 5
PAUSE_S = 1.0  # before the second attempt; doubled before each further one
CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A file as its publisher offers it: name, size in bytes, sha256, and its public address up to the name, if any."""

    name: str
    size: int
    sha256: str
    base: str = ""

    @property
    def url(self) -> str:
        return self.base + self.name


class _PassingError(Exception):
    """A failure that may pass: worth another attempt from where it stopped."""


class _UnreachableError(_PassingError):
    """No answer or no route: may pass where there have been answers before."""


def obtain(file: Published, source: Path | None, downloads: Path) -> Path:
    """The checked file: found at `source` (the file itself or a folder holding it), else downloaded.

    Raises InputError if it is not there, cannot be downloaded, or is not what was published.
    """
    if source is None:
        return fetch(file, downloads)
    path = source / file.name if source.is_dir() else source
    if not path.is_file():
        raise InputError(f"--source {source}: no {file.name} there" + ("" if source.exists() else " (no such path)"))
    verify(file, path)
    return path


def folder_of(source: Path | None, names: Sequence[str]) -> Path | None:
    """`source`, which has to be a folder because several files are needed."""
    if source is not None and not source.is_dir():
        raise InputError(f"--source {source}: not a folder; give the folder of {', '.join(names)}")
    return source


def verify(file: Published, path: Path) -> None:
    """InputError unless `path` has the published size and sha256."""
    size = path.stat().st_size
    if size != file.size:
        raise InputError(f"{path}: {size} bytes, the published {file.name} has {file.size}: another file, or cut short")
    if (found := digest(path)) != file.sha256:
        raise InputError(f"{path}: damaged: sha256 {found}, the published {file.name} has {file.sha256}")


def fetch(file: Published, folder: Path) -> Path:
    """Download into `folder`, or take what an earlier call left there. Raises InputError with the way out.

    Another file of that name, the user's own maybe, stays there until the right one takes its place.
    """
    target, part = folder / file.name, folder / (file.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            try:
                verify(file, target)
                return target
            except InputError as error:
                print(f"{printable(str(error))}; downloading it again", flush=True)
        with part.open("ab") as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{part}: another process is downloading it; wait for it to end") from None
            resumed = out.tell() > 0
            while True:
                _complete(file, out)
                try:
                    verify(file, part)
                    break
                except InputError as fault:
                    out.truncate(out.seek(0))  # wrong bytes are nothing to go on from
                    if not resumed:
                        raise _no_way(file, str(fault)) from None
                    resumed = False
            os.fsync(out.fileno())
            part.rename(target)
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror or error}") from None
    return target


def _complete(file: Published, out: BinaryIO) -> None:
    """Append to `out` until it has the published size, all of it on its way to the disk."""
    if out.tell() > file.size:
        out.truncate(out.seek(0))
    already = out.tell()
    missing, free = file.size - already, shutil.disk_usage(out.name).free
    if missing > free:
        raise InputError(f"{out.name}: {missing >> 20} MiB more are needed, {free >> 20} MiB are free on that disk")
    print(f"downloading {file.url} ({file.size / 1e6:.0f} MB)", flush=True)
    columns = (TextColumn(file.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(file.name, total=file.size)
        attempt, furthest = 0, already
        while True:
            try:
                while out.tell() < file.size:
                    _transfer(file, out, lambda: progress.update(task, completed=out.tell()))
                out.flush()
                return
            except _PassingError as failure:
                if isinstance(failure, _UnreachableError) and out.tell() == already:
                    raise _no_way(file, str(failure)) from None
                attempt += 1
                if out.tell() >= furthest + CHUNK:
                    attempt, furthest = 1, out.tell()
                if attempt == ATTEMPTS:
                    raise _no_way(file, f"{failure} ({ATTEMPTS} attempts)") from None
                time.sleep(PAUSE_S * 2 ** (attempt - 1))


def _transfer(file: Published, out: BinaryIO, moved: Callable[[], None]) -> None:
    """One request: from where `out` ends to the end of the file, or to a failure."""
    start = out.tell()
    with _connect(file, start) as response:
        skip = start if response.status == 200 else 0  # the server knows no ranges: what is there comes again
        headers, ranged = response.headers, start and not skip
        total = headers.get("Content-Range", "").rpartition("/")[2] if ranged else headers.get("Content-Length", "")
        if total.isdigit() and int(total) != file.size:
            raise _no_way(file, f"it now has {total} bytes, the published {file.name} had {file.size}")
        window_at, window_bytes = time.monotonic(), 0
        while out.tell() < file.size:
            try:
                data = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _PassingError(str(error) or type(error).__name__) from None
            if not data:
                raise _PassingError(f"the connection closed after {out.tell()} of {file.size} bytes")
            fresh, skip = data[skip:], max(0, skip - len(data))
            out.write(fresh[: file.size - out.tell()])
            moved()
            window_bytes += len(data)
            if (elapsed := time.monotonic() - window_at) > STALL_S:
                if window_bytes < LEAST_RATE * elapsed:
                    raise _PassingError(f"{window_bytes} bytes in {elapsed:.0f} s")
                window_at, window_bytes = time.monotonic(), 0


def _connect(file: Published, start: int) -> http.client.HTTPResponse:
    """The open response to a request for the bytes from `start`, within CONNECT_S.

    In a thread of its own: no timeout of urllib covers looking a name up, or headers that trickle.
    """
    request = urllib.request.Request(file.url, headers={"User-Agent": "ali-fast"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=STALL_S))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_S)
    except queue.Empty:
        raise _UnreachableError(f"no answer within {CONNECT_S:.0f} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        if answer.code >= 500 or answer.code == 429:
            raise _PassingError(f"the server says {answer.code} {answer.reason}")
        raise _no_way(file, f"the server says {answer.code} {answer.reason}")
    if isinstance(answer, urllib.error.URLError):  # no name server, no route, refused
        raise _UnreachableError(f"no connection: {getattr(answer.reason, 'strerror', None) or answer.reason}")
    if isinstance(answer, Exception):
        raise _PassingError(str(answer) or type(answer).__name__)
    given = answer.headers.get("Content-Range", "")
    if start and answer.status == 206 and not given.startswith(f"bytes {start}-"):
        answer.close()
        raise _no_way(file, f"asked for what follows byte {start}, the server answered {given!r}")
    return answer


def _no_way(file: Published, reason: str) -> InputError:
    said = printable(reason)  # it may be the server's own words
    way = f"get {file.name} another way and give its path with --source"
    return InputError(f"cannot download {file.url}: {said}; {way}")
