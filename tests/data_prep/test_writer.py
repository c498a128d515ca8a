"""A split is whole or not there: whatever fails, whoever is killed, at whichever file operation."""

import contextlib
import errno
import os
import resource
import signal
import struct
import sys
import time
import warnings
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import joblib
import numpy as np
import pytest

from ali_fast.data import schema
from ali_fast.data.beton import Beton
from ali_fast.errors import InputError
from data_prep import chunks, writer
from data_prep.split import Sample, Split
from data_prep.writer import write_splits

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
CLASSES = ("a", "b", "c")


def read(i: int) -> Sample:
    return Sample(IMAGES[i], i % 3)


def split_of(read=read, count=300, **changes) -> Split:
    return Split(**{"count": count, "image_shape": (4, 4, 3), "read": read, "classes": CLASSES} | changes)


@pytest.fixture
def path(memory_path) -> Path:
    """In memory: a busy disk takes seconds for what is waited for here."""
    return memory_path / "made" / "train.beton"


def write(path: Path, split: Split, **options):
    return write_splits({path: split}, **options)[0]


def left(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()} if path.parent.exists() else set()


@contextlib.contextmanager
def child(body):
    """`body` in a forked process, as a main program: the context has its id and ends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born without it
        try:
            body()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [None, 0, 3])
def test_what_is_written_is_what_was_read(path, workers):
    marks = np.random.default_rng(1).integers(0, 2, (300, 7), np.uint8)
    split = split_of(
        lambda i: Sample(IMAGES[i], i % 3, marks[i]), attribute_names=tuple("abcdefg"), source_sha256={"s": "1" * 64}
    )
    seen = []
    manifest = write(
        path, split, workers=workers, progress=lambda draft, done: seen.append((draft, done)), options={"size": 4}
    )
    beton = Beton(path)
    beton.verify()
    assert beton.manifest == manifest
    assert (manifest.count, manifest.shape, manifest.classes) == (300, (4, 4, 3), CLASSES)
    assert (manifest.source_sha256, manifest.options) == ({"s": "1" * 64}, {"size": 4})
    assert np.array_equal(beton.arrays("image", 0, 300), IMAGES)
    assert np.array_equal(beton.arrays("attributes", 0, 300), marks)
    assert np.array_equal(beton.metadata["label"], np.arange(300) % 3)
    assert [done for _, done in seen] == [64, 128, 192, 256, 300]
    assert seen[0][0].bytes == manifest.bytes
    assert left(path) == {"train.beton", "train.json"}


def test_equal_sources_give_equal_bytes_whoever_reads_them(tmp_path):
    hashes = {
        write(tmp_path / str(workers) / "train.beton", split_of(), workers=workers).sha256
        for workers in (None, 0, 1, 4)
    }
    assert len(hashes) == 1


def test_slow_reads_run_in_processes_and_quick_ones_do_not(path, monkeypatch):
    pids = path.parent.parent / "pids"
    pids.mkdir()

    def note(i):
        (pids / str(os.getpid())).touch()
        time.sleep(0.002)
        return read(i)

    monkeypatch.setattr(chunks, "WORTH_WORKERS_S", 3600.0)
    write(path, split_of(note))
    assert [int(file.name) for file in pids.iterdir()] == [os.getpid()]
    monkeypatch.setattr(chunks, "WORTH_WORKERS_S", 0.1)
    write(path, split_of(note))
    assert len(list(pids.iterdir())) == 1 + joblib.cpu_count()


WRONG = {
    "raises": (lambda: 1 / 0, "image 170: ZeroDivisionError: division by zero"),
    "no array": (lambda: Sample([1, 2], 0), "image 170: its image is list"),
    "gray": (
        lambda: Sample(IMAGES[0][..., 0], 0),
        r"image 170: its image is uint8 \[4, 4\], should be uint8 \[4, 4, 3\]",
    ),
    "float": (lambda: Sample(IMAGES[0] / 255, 0), r"image 170: its image is float64"),
    "larger": (lambda: Sample(np.zeros((5, 4, 3), np.uint8), 0), r"uint8 \[5, 4, 3\]"),
    "no label": (lambda: Sample(IMAGES[0]), "image 170: its label is None, should be from 0 to 2"),
    "label": (lambda: Sample(IMAGES[0], 3), "image 170: its label is 3"),
    "no attributes": (lambda: Sample(IMAGES[0], 0), "image 170: its attributes is NoneType"),
    "attribute": (lambda: Sample(IMAGES[0], 0, np.array([2, 0], np.uint8)), "image 170: an attribute is 2"),
    "its own": (lambda: (_ for _ in ()).throw(InputError("cat.png: cut short")), r"^cat\.png: cut short$"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", WRONG)
def test_a_bad_sample_is_named_and_nothing_is_left(path, within, fault, workers):
    wrong, says = WRONG[fault]
    marks = {"attribute_names": ("p", "q")} if "attribute" in fault else {}

    def bad(i):
        return wrong() if i == 170 else Sample(IMAGES[i], i % 3, np.zeros(2, np.uint8) if marks else None)

    with within(10), pytest.raises(InputError, match=says):
        write(path, split_of(bad, **marks), workers=workers)
    assert left(path) == set()


def test_points_must_be_finite(path):
    with pytest.raises(InputError, match="image 2: x1 is nan"):
        write(path, Split(3, (2,), lambda i: Sample(np.array([0, np.nan if i == 2 else 1]))))


def test_no_samples(path):
    with pytest.raises(InputError, match="not one sample"):
        write(path, split_of(count=0))


def test_an_image_larger_than_a_page(path):
    with pytest.raises(InputError, match="larger than a page"):
        write(path, split_of(image_shape=(2000, 2000, 3)))


# What takes at most two seconds is given ten here, on a machine that may be busy, against minutes without the guard.


@pytest.mark.parametrize("at", [64, 170, 299])
def test_a_dead_worker_is_an_error_that_names_its_image(path, within, at):
    def die(i):
        if i == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(i)

    split = split_of(die, name=lambda i: f"cat {i}.png")
    message = (
        rf"^made, train, image cat {at}\.png: the process that read it was killed \(too little memory\?\); free some"
    )
    with within(10), pytest.raises(InputError, match=message):
        write(path, split, workers=2)
    assert left(path) == set()


def test_a_worker_killed_before_its_first_image_names_that(path, within, monkeypatch):
    monkeypatch.setattr(chunks, "_work", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with within(10), pytest.raises(InputError, match=r"^made, train, image (0|128): the process that read"):
        write(path, split_of(), workers=2)


def test_a_worker_killed_while_it_hands_over_a_chunk(path, within, monkeypatch):
    """Half a message: the pools of the standard library wait for ever for the other half."""
    send, parent = Connection.send, os.getpid()

    def half(self, message):
        if os.getpid() == parent:
            return send(self, message)
        data = bytes(ForkingPickler.dumps(message))
        os.write(self.fileno(), struct.pack("!i", len(data)) + data[:100])
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Connection, "send", half)
    with within(10), pytest.raises(InputError, match="the process that read it was killed"):
        write(path, split_of(), workers=2)
    assert left(path) == set()


@pytest.mark.parametrize("fault", [64, 128, 290])
@pytest.mark.parametrize("kind", ["bad image", "dead worker"])
def test_a_fault_does_not_wait_for_slow_readers(path, within, fault, kind):
    """One is in the way of each of the others: before it, after it, or both."""

    def slow(i):
        if i == fault:
            if kind == "dead worker":
                os.kill(os.getpid(), signal.SIGKILL)
            raise InputError("bad")
        time.sleep(1 if i >= 64 and i // 64 != fault // 64 else 0)  # a minute for a chunk
        return read(i)

    with within(10), pytest.raises(InputError, match=f"bad|image {fault}: the process that read it was killed"):
        write(path, split_of(slow), workers=5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_leaves_nothing(path, within, workers):
    def slow(i):
        (path.parent / "started").touch()
        time.sleep(1)
        return read(i)

    with within(10), child(lambda: write(path, split_of(slow), workers=workers)) as pid:
        wait_for((path.parent / "started").exists)
        time.sleep(0.1)
        os.kill(pid, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert left(path) == {"started"}


def test_workers_do_not_outlive_a_killed_writer(path, within):
    pids = path.parent.parent / "pids"
    pids.mkdir()

    def note(i):
        (pids / str(os.getpid())).touch()
        time.sleep(0.05)
        return read(i)

    with within(20), child(lambda: write(path, split_of(note), workers=2)) as pid:
        wait_for(lambda: len(list(pids.iterdir())) == 2)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        workers = [int(file.name) for file in pids.iterdir()]

        def gone():
            return not any(Path(f"/proc/{worker}/cmdline").exists() and _state(worker) != "Z" for worker in workers)

        wait_for(gone)
    assert not path.exists()


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_killed_at_any_file_operation(path, within):
    """Killed before each open, sync, hash, removal and renaming: what is there then is the old split, the new one, or
    one to be made; and making it again works and leaves nothing over."""
    old, new = (
        {
            path.with_stem(stem): split_of(lambda i, k=k: Sample(IMAGES[i] // k, 0), count=9)
            for stem in ("train", "valid")
        }
        for k in (2, 1)
    )
    outcomes = set()
    operation = 0
    with within(100):
        while "finished" not in outcomes:
            operation += 1
            kept = {manifest.sha256 for manifest in write_splits(old)}

            def die_at(operation=operation):
                count = 0

                def hook(event, arguments):
                    nonlocal count
                    if event in ("open", "os.rename", "os.remove", "os.truncate", "hashlib.new", "os.fsync"):
                        count += 1
                        if count == operation:
                            os.kill(os.getpid(), signal.SIGKILL)

                fsync = os.fsync
                os.fsync = lambda fd: (hook("os.fsync", ()), fsync(fd))
                sys.addaudithook(hook)
                write_splits(new)

            with child(die_at) as pid:
                if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
                    outcomes.add("finished")
            found = set()
            for split in new:
                try:
                    beton = Beton(split)
                    beton.verify()
                    found.add("old" if beton.manifest.sha256 in kept else "new")
                except schema.NotPreparedError:
                    found.add("missing")
            assert found != {"old", "new"}
            outcomes |= found
            write_splits(new)
            for split in new:
                Beton(split).verify()
            assert left(path) == {"train.beton", "train.json", "valid.beton", "valid.json"}
    assert outcomes == {"old", "missing", "new", "finished"}
    assert operation > 16


def test_all_is_on_the_disk_before_anything_old_is_touched(path, disk):
    """Else a loss of power could leave a manifest of a beton that is not whole."""
    splits = {path: split_of(), path.with_stem("test"): split_of(count=9)}
    write_splits(splits)
    disk.clear()
    write_splits(splits)
    names = [file.name for split in splits for file in (split, schema.manifest_path(split))]
    betons, manifests = names[::2], names[1::2]
    assert disk == [
        *(("fsync", f"{name}.part", path.with_name(name).stat().st_size) for name in names),
        *(("unlink", name) for name in manifests),
        *(("replace", f"{name}.part", name) for name in betons + manifests),
    ]


def test_one_bad_split_leaves_the_others_as_they_were(path):
    """Not a new train beside an old valid, which may hold the same images."""
    test = path.with_stem("test")
    write_splits({path: split_of(), test: split_of()})
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(InputError, match="made, test, image 2: ZeroDivisionError"):
        other, bad = lambda i: Sample(IMAGES[-i], 0), lambda i: Sample(IMAGES[i], 0 // (2 - i))
        write_splits({path: split_of(other), test: split_of(bad)})
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_full_disk_is_said_before_anything_is_read(path, monkeypatch):
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"cannot write .*train\.beton: No space left.*it takes 0\.0 MB: free some"):
        write(path, split_of(lambda i: 1 / 0))
    assert left(path) == set()


def test_room_is_asked_for_all_splits_at_once(path, monkeypatch):
    size = write(path, split_of()).bytes
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: type("usage", (), {"free": size * 3 // 2}))
    unread = split_of(lambda i: pytest.fail("a full disk is said first"))
    with pytest.raises(InputError, match="No space left"):
        write_splits({path.with_stem(stem): unread for stem in ("train", "valid")}, workers=0)


def test_a_disk_that_fills_up_meanwhile(path, within):
    """A limit on the file's size stands in for it: the write itself fails, at any moment."""

    def body():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(InputError, match=f"{os.strerror(errno.EFBIG)}; it takes 0.0 MB: free some"):
            write(path, split_of(), workers=2)

    with within(10), child(body) as pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert left(path) == set()


def test_a_folder_one_may_not_write_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"cannot write .*train\.beton: (File exists|Not a directory); use another --data-dir"
    ):
        write(tmp_path / "file" / "train.beton", split_of())


def test_memory_does_not_grow_with_the_images(path):
    """Only the tables are held: 40 bytes a sample, and a few chunks."""

    def body():
        image = np.zeros((256, 256, 3), np.uint8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write(path, Split(600, (256, 256, 3), lambda i: Sample(image)), workers=0)  # 118 MB
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 30_000

    with child(body) as pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.stat().st_size > 600 * 256 * 256 * 3
