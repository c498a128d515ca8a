import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from ali_fast.errors import InputError
from data_prep.spool import Spool


def test_written_anywhere_read_anywhere(tmp_path):
    spool = Spool(tmp_path / "new folder")
    spool.write(b"defg", 3)
    spool.write(b"abc", 0)
    spool.write(b"hi")
    assert spool.size == 9
    assert spool.read(2, 6) == b"cdefgh"
    with pytest.raises(InputError, match="cut short"):
        spool.read(5, 10)


def test_a_copy_in_another_process_reads_and_does_not_delete(tmp_path):
    spool = Spool(tmp_path)
    spool.write(b"0123456789")
    copy = pickle.loads(pickle.dumps(spool))
    assert copy.read(3, 2) == b"34"
    del copy
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert pool.submit(spool.read, 1, 3).result(120) == b"123"
    assert spool.read(0, 1) == b"0"


def test_deleted_with_its_owner_not_with_a_forked_child(tmp_path):
    spool = Spool(tmp_path)
    child = os.fork()
    if child == 0:
        del spool
        os._exit(0)
    os.waitpid(child, 0)
    assert spool.path.exists()
    path = spool.path
    del spool
    assert not path.exists()


def test_what_a_killed_process_left_is_swept_what_is_in_use_is_kept(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from data_prep.spool import Spool; "
        f"s = Spool(Path({str(tmp_path)!r})); s.write(b'x'); print('up', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"up\n"
    mine = Spool(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # the child's is in use
    child.send_signal(signal.SIGKILL)
    child.wait()
    other = Spool(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine.path, other.path])


def test_a_full_disk_and_a_wrong_folder_are_one_clear_error(tmp_path):
    spool = Spool(tmp_path)
    with open("/dev/full", "wb", buffering=0) as full:
        own, spool._file = spool._file, full
        with pytest.raises(InputError, match="free space or use another --data-dir"):
            spool.write(b"x" * 5000)
        spool._file = own
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write to"):
        Spool(tmp_path / "file")
