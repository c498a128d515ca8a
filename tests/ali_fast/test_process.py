"""Settings of the process."""

import subprocess
import sys

import pytest
import torch

from ali_fast import process

FAULTS = """
import resource
import sys

import torch

from ali_fast import process

if sys.argv[1] == "set up":
    process.set_up(torch.device("cpu"))


def work():
    '''Tensors that malloc would map, of 40 MB, and many of 1 MB, of which it would trim the last.'''
    large = [torch.ones(10_000_000) for _ in range(3)]
    small = [torch.ones(250_000) for _ in range(200)]
    return float(large[0][0] + small[0][0])


for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's malloc")
def test_a_cpu_step_faults_its_memory_in_once():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("as it comes", "set up")
    }
    assert faults["as it comes"] > 100_000  # or the setting has nothing to gain here
    assert faults["set up"] < 1000


def test_on_a_gpu_cudnn_times_its_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    process.set_up(torch.device("cpu"))
    assert not torch.backends.cudnn.benchmark
    process.set_up(torch.device("cuda"))
    assert torch.backends.cudnn.benchmark
