import errno
import itertools
import os
import resource
import signal
import time
import zipfile

import pytest
import torch

from ali_fast import checkpoint
from ali_fast.errors import InputError, Interrupted


def state(value: float, size: int = 64) -> dict:
    return {"step": {"model": {"w": torch.full((size, size), float(value))}, "steps": int(value)}, "seconds": value}


def save(directory, *steps, keep=3):
    for step in steps:
        checkpoint.save(directory, step, state(step), keep=keep)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_round_trip_newest_n_and_latest(tmp_path):
    save(tmp_path, 1, 20, 300, 4000, keep=2)
    assert names(tmp_path) == ["latest.pt", "step-00000300.pt", "step-00004000.pt"]
    path, found = checkpoint.read_newest(tmp_path, warn=pytest.fail)
    assert path.name == "step-00004000.pt"
    assert torch.equal(found["step"]["model"]["w"], torch.full((64, 64), 4000.0))
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert latest["step"]["steps"] == 4000


def test_it_is_on_the_disk_before_it_has_its_name_and_its_name_before_save_returns(tmp_path, disk):
    path = checkpoint.save(tmp_path, 7, state(7), keep=1)
    assert disk == [
        ("fsync", "step-00000007.part", path.stat().st_size),
        ("replace", "step-00000007.part", "step-00000007.pt"),
        ("replace", "latest.pt.part", "latest.pt"),
        ("fsync", tmp_path.name, tmp_path.stat().st_size),
    ]


def test_order_is_by_number_not_by_name(tmp_path):
    save(tmp_path, 99_999_999, 100_000_000)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step-100000000.pt", "step-99999999.pt"]


def test_empty_directory(tmp_path):
    assert checkpoint.read_newest(tmp_path, warn=pytest.fail) is None


def damages():
    def cut(raw):
        return raw[:-1000]

    def half(raw):
        return raw[: len(raw) // 2]

    def empty(raw):
        return b""

    def text(raw):
        return b"no checkpoint at all\n" * 100

    def flipped_weight(raw):
        at = raw.index(torch.full((4,), 2.0).numpy().tobytes()) + 2
        return raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]

    return (cut, half, empty, text, flipped_weight)


@pytest.mark.parametrize("damage", damages(), ids=lambda d: d.__name__)
def test_damaged_is_never_taken(tmp_path, damage):
    save(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    lines = []
    path, found = checkpoint.read_newest(tmp_path, warn=lines.append)
    assert (path.name, found["step"]["steps"]) == ("step-00000001.pt", 1)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert str(newest) in lines[0]


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    """torch's reader alone takes most of these: the weights it gives are wrong without a word."""
    checkpoint.save(tmp_path, 7, state(7, size=8), keep=1)
    path = tmp_path / "step-00000007.pt"
    raw = path.read_bytes()
    good = state(7, size=8)
    for at in range(0, len(raw), 3):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        try:
            found = checkpoint.read(path)
        except (checkpoint.DamagedCheckpointError, InputError):
            continue
        assert torch.equal(found["step"]["model"]["w"], good["step"]["model"]["w"]), at
        assert (found["step"]["steps"], found["seconds"]) == (7, 7), at


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    save(tmp_path, 1, 2)
    for path in checkpoint.list_checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 2 checkpoints"):
        checkpoint.read_newest(tmp_path, warn=lambda _: None)


def test_a_damaged_later_one_does_not_push_out_a_good_one(tmp_path):
    save(tmp_path, 10, 20, keep=1)
    save(tmp_path, 10, keep=1)
    (tmp_path / "step-00000030.pt").write_bytes(b"cut")
    save(tmp_path, 20, keep=1)  # the run fell back to 10 and has come to 20 again
    assert names(tmp_path) == ["latest.pt", "step-00000020.pt"]


def test_half_written_part_is_no_checkpoint_and_is_cleared(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000002.part").write_bytes(b"half")
    assert checkpoint.read_newest(tmp_path, warn=pytest.fail)[1]["step"]["steps"] == 1
    save(tmp_path, 3)
    assert "step-00000002.part" not in names(tmp_path)


def test_disk_full_keeps_the_last_good_one(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000002.part").symlink_to("/dev/full")  # every write there fails with ENOSPC
    with pytest.raises(InputError, match=r"no space left .* step-00000001.pt is the last good one") as caught:
        save(tmp_path, 2)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert names(tmp_path) == ["latest.pt", "step-00000001.pt"]
    assert checkpoint.read_newest(tmp_path, warn=pytest.fail)[1]["step"]["steps"] == 1


def test_a_disk_that_fills_on_the_way_keeps_the_last_good_one(tmp_path):
    """torch's writer, ended in the middle, raises an error of its own over the one that says why."""
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"no space left .* step-00000001.pt is the last good one"):
            checkpoint.save(tmp_path, 2, state(2, size=400), keep=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["latest.pt", "step-00000001.pt"]


def test_a_signal_on_the_way_is_that_signal_and_leaves_no_half(tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interrupted(signal.SIGTERM)

    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "open", lambda *a: Refusing(a, interrupted), raising=False)
    with pytest.raises(Interrupted):
        save(tmp_path, 2)
    assert names(tmp_path) == ["latest.pt", "step-00000001.pt"]


def test_an_error_of_torchs_own_is_not_mistaken_for_what_was_handled_around_it(tmp_path, monkeypatch):
    """A run whose data was cut saves in a handler."""

    def fail(*_):
        raise RuntimeError("torch's own")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(RuntimeError, match="torch's own"):
        try:
            raise InputError("the data was cut")
        except InputError:
            save(tmp_path, 1)


class Refusing:
    """A file that refuses its third write."""

    def __init__(self, arguments, refuse):
        self.file, self.refuse, self.writes = open(*arguments), refuse, 0  # noqa: SIM115  __exit__ closes it

    def write(self, data):
        self.writes += 1
        return self.refuse() if self.writes == 3 else self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "step-00000001.pt")
    with pytest.raises(InputError, match="format 99"):
        checkpoint.read_newest(tmp_path, warn=pytest.fail)


@pytest.mark.parametrize("name", ["step-00000099.pt", "step-00000001.pt"])
def test_a_file_without_a_step_is_damaged(tmp_path, name):
    save(tmp_path, 2)
    torch.save({"format": checkpoint.FORMAT, "seconds": 1.0}, tmp_path / name)
    lines = []
    assert checkpoint.read_newest(tmp_path, warn=lines.append)[0].name == "step-00000002.pt"
    assert [f"{name} is damaged" in line for line in lines] == [True] * (name > "step-00000002.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"format": checkpoint.FORMAT, "x": Evil()}, tmp_path / "step-00000001.pt")
    with pytest.raises(InputError, match="none of the 1 checkpoints"):
        checkpoint.read_newest(tmp_path, warn=lambda _: None)
    assert not (tmp_path / "ran").exists()


def test_kill_at_any_moment_leaves_a_good_newest(tmp_path):
    for attempt in range(20):
        reader, writer = os.pipe()
        child = os.fork()  # torch is loaded already: no three seconds a kill
        if child == 0:
            torch.set_num_threads(1)  # the threads that other tests started do not live in a fork
            for step in itertools.count(1):
                checkpoint.save(tmp_path, step, {"step": step, "w": torch.full((400, 400), float(step))}, keep=2)
                os.write(writer, step.to_bytes(8, "big"))
        os.close(writer)
        said = os.read(reader, 8)
        time.sleep(attempt * 0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reader, 1 << 16):
            said = more
        os.close(reader)
        _, found = checkpoint.read_newest(tmp_path, warn=pytest.fail)
        assert found["step"] >= int.from_bytes(said[-8:], "big")
        assert bool((found["w"] == found["step"]).all())
        for path in checkpoint.list_checkpoints(tmp_path):
            path.unlink()


def test_another_network_is_named(tmp_path):
    here = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    checkpoint.check_same_network(dict(here), here, tmp_path)
    with pytest.raises(InputError, match=r"a is \[2, 4\] there and \[2, 3\] here"):
        checkpoint.check_same_network({"a": torch.zeros(2, 4), "b": torch.zeros(4)}, here, tmp_path)
    with pytest.raises(InputError, match="it has no b; it has c, which this network lacks"):
        checkpoint.check_same_network({"a": torch.zeros(2, 3), "c": torch.zeros(4)}, here, tmp_path)


def test_one_that_cannot_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002.pt"

    def fail(self, *_, **__):
        raise OSError(errno.EIO, "Input/output error")

    for broken in ("pathlib.Path.open", "zipfile.ZipFile.testzip"):
        with monkeypatch.context() as m, pytest.raises(InputError, match=f"{newest.name} cannot be read"):
            m.setattr(broken, fail)
            checkpoint.read_newest(tmp_path, warn=pytest.fail)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, error):
    save(tmp_path, 1, 2)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        checkpoint.read_newest(tmp_path, warn=pytest.fail)


def test_one_that_is_pruned_under_its_reader_is_passed_over_for_the_newer(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"step": {"steps": 1}}, keep=1)
    listed = checkpoint.list_checkpoints

    def then_pruned(directory):
        found = listed(directory)
        monkeypatch.setattr(checkpoint, "list_checkpoints", listed)
        checkpoint.save(directory, 2, {"step": {"steps": 2}}, keep=1)
        return found

    monkeypatch.setattr(checkpoint, "list_checkpoints", then_pruned)
    path, state = checkpoint.read_newest(tmp_path, warn=print)
    assert (path.name, state["step"]) == ("step-00000002.pt", {"steps": 2})


def test_a_link_to_nothing_is_an_error(tmp_path):
    (tmp_path / "step-00000001.pt").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.read_newest(tmp_path, warn=print)


def test_what_is_loaded_is_what_was_checked(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, 1, {"step": 1}, keep=1)
    check = zipfile.ZipFile.testzip

    def swap(archive):
        found = check(archive)
        path.unlink()
        torch.save({"format": checkpoint.FORMAT, "step": "other"}, path)
        return found

    monkeypatch.setattr(zipfile.ZipFile, "testzip", swap)
    assert checkpoint.read(path)["step"] == 1
