import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from ali_fast import files
from ali_fast.errors import InputError


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
