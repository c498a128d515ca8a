"""Settings of the process."""

import subprocess
import sys

import pytest
import torch

from ali_fast import process

FREED = """
import resource
import sys
from pathlib import Path

import torch

from ali_fast import process

if sys.argv[1] == "set up":
    process.set_up(torch.device("cpu"))


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


for _ in range(3):
    # malloc would map it, and unmap it again
    large = torch.ones(16_000_000)
    held = resident()
    del large
print(held - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's malloc")
def test_a_cpu_step_keeps_its_freed_memory():
    """In bytes, not page faults: how much a fault brings back is the kernel's choice."""
    given_back = {
        how: int(subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True).stdout)
        for how in ("as it comes", "set up")
    }
    assert given_back["as it comes"] > 60e6, "or the setting is for nothing"
    assert given_back["set up"] < 1e6


def test_on_a_gpu_cudnn_times_its_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    process.set_up(torch.device("cpu"))
    assert not torch.backends.cudnn.benchmark
    process.set_up(torch.device("cuda"))
    assert torch.backends.cudnn.benchmark


@pytest.fixture
def threads():
    """torch's number of them is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "asked", "expected"), [(2, None, 2), (2, "3", 3), (8, None, 3)])
def test_a_cpu_has_no_more_threads_than_cores_to_use(monkeypatch, threads, cores, asked, expected):
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(process, "cpu_count", lambda: cores)
    torch.set_num_threads(3)
    process.set_up(torch.device("cpu"))
    assert torch.get_num_threads() == expected
