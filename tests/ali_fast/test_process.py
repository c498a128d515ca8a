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
    '''A tensor that malloc would map, and the heap's end, which it would trim.'''
    large, end = torch.ones(16_000_000), [torch.ones(250_000) for _ in range(100)]
    return float(large[0] + end[0][0])


for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's malloc")
def test_a_cpu_step_faults_its_memory_in_once():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("as it comes", "set up")
    }
    if faults["as it comes"] < 5000:
        pytest.skip("this kernel maps so many pages at a fault that there is nothing to gain")
    assert 20 * faults["set up"] < faults["as it comes"]


def test_on_a_gpu_cudnn_times_its_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    process.set_up(torch.device("cpu"))
    assert not torch.backends.cudnn.benchmark
    process.set_up(torch.device("cuda"))
    assert torch.backends.cudnn.benchmark
