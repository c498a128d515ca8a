import os
import threading

import pytest

from ali_fast.files import STALE_SECONDS, whole, write_text


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
