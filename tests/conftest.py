import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # `pytest -n 2`: one core each, and so do the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

ONE_PROCESS = ("aot", "interpreter")  # folders whose tests share what one process made


def pytest_itemcollected(item):
    """With `pytest -n 2 --dist loadgroup` such a folder's tests stay together."""
    if item.path.parent.name in ONE_PROCESS:
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))


def pytest_collection_modifyitems(items):
    """Tests that need a GPU are skipped where there is none; `pytest -m gpu` runs only them."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def within() -> Callable[[float], AbstractContextManager[None]]:
    """A context that raises instead of hanging."""

    @contextmanager
    def limit(seconds: float) -> Iterator[None]:
        def late(number: int, frame: object) -> None:
            raise TimeoutError(f"not done after {seconds} s")

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return limit


@pytest.fixture
def disk(monkeypatch) -> list[tuple]:
    """What the disk was told, in order: ("fsync", name, its size then), ("replace", old, new), ("unlink", name).

    No test can cut the power; what would be left then follows from this order.
    """
    told: list[tuple] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def synced(descriptor):
        fsync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        told.append(("fsync", name, os.fstat(descriptor).st_size))

    def replaced(old, new, **folders):
        replace(old, new, **folders)
        told.append(("replace", Path(old).name, Path(new).name))

    def unlinked(path, **folder):
        unlink(path, **folder)
        told.append(("unlink", Path(path).name))

    for name, call in (("fsync", synced), ("replace", replaced), ("unlink", unlinked)):
        monkeypatch.setattr(os, name, call)
    return told


@pytest.fixture
def hand_clock(monkeypatch) -> SimpleNamespace:
    """time.perf_counter's, which stands still but for what is added to its `now`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


@pytest.fixture(scope="module")
def hangs_up() -> Iterator[None]:
    """SIGHUP means what it does on a terminal: under nohup it is ignored, and its children's too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
