import errno
import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from ali_fast import files
from ali_fast.errors import InputError
from ali_fast.files import STALE_SECONDS, whole, write_text


@pytest.fixture
def full_disk():
    """Writing past 64 KiB of any file fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_what_was_there_and_is_named(tmp_path, full_disk):
    path = tmp_path / "codes.npz"
    path.write_bytes(b"before")
    with pytest.raises(InputError, match=r"cannot write .*/codes\.npz: File too large; "), files.output(path) as part:
        np.savez(part.open("wb"), mu=np.zeros(1 << 20))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["codes.npz"]


def test_new_and_old_files_are_written(tmp_path):
    for text in ("first", "second"):
        with files.output(tmp_path / "a") as name:
            name.write_text(text)
        assert (tmp_path / "a").read_text() == text
    with pytest.raises(InputError, match=r"cannot write .*absent/a: No such file"):
        files.write_output(tmp_path / "absent" / "a", "text")
    with pytest.raises(InputError, match=r"cannot write .*: Is a directory"):
        files.write_output(tmp_path, "text")
    assert os.listdir(tmp_path) == ["a"]


def test_links_stay_links(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for text in ("first", "second"):
        files.write_output(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == text


def test_pipes_are_written_to_and_not_replaced(tmp_path):
    """/dev/stdout is such a link, to a pipe or to a file; not that one: a fault here would replace it for all."""
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    code = f"import pathlib, ali_fast.files; ali_fast.files.write_output(pathlib.Path({str(tmp_path / 'out')!r}), '7')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7"
    with (tmp_path / "file").open("w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "file").read_text() == "7"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_output(tmp_path / "pipe", "7")
    assert os.read(reader, 9) == b"7"
    os.close(reader)
    assert sorted(os.listdir(tmp_path)) == ["file", "out", "pipe"]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), whole(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("start", ["fork", "thread"])
def test_two_writers_of_one_file_do_not_meet(tmp_path, start):
    """A training and an evaluation write one report: both finish, and one's text is there, unmixed."""
    path, texts = tmp_path / "a.txt", ["one" * 10_000, "two" * 10_000]

    def write(text):
        for _ in range(200):
            write_text(path, text)
            assert path.read_text() in texts

    if start == "fork":
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                write(texts[0])
                failed = 0
            finally:
                os._exit(failed)
        write(texts[1])
        assert os.waitpid(child, 0)[1] == 0
    else:
        failures = []

        def guarded(text):
            try:
                write(text)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
    assert names(tmp_path) == ["a.txt"]


def test_where_the_disk_is_full_the_file_is_named(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, whole(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError) as error, whole(tmp_path / "a.txt"):
        (tmp_path / "absent").read_text()
    assert error.value.filename == str(tmp_path / "absent")
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "a[1].txt"
    with whole(path) as killed, whole(path) as living:
        for part in (killed, living):
            part.write_text("half")
        old = killed.stat().st_mtime - STALE_SECONDS - 1
        os.utime(killed, (old, old))
        other = tmp_path / "b.txt.part"
        other.write_text("not ours")
        os.utime(other, (old, old))
        write_text(path, "whole")
        assert names(tmp_path) == sorted(["a[1].txt", living.name, "b.txt.part"])
        killed.write_text("")  # for the end of this block
