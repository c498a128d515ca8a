"""What is used where, and what is refused."""

import pytest
import torch
from torch.torch_version import TorchVersion

from ali_fast import decide
from ali_fast.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def eight_gb_free(monkeypatch):
    monkeypatch.setattr(decide, "_free_bytes", lambda where: 8 * 10**9)


def test_a_set_is_held_on_a_gpu_where_it_leaves_room():
    assert decide.resident("auto", CUDA, 10**9) == (True, "1.00 GB of 8.00 GB free")
    assert decide.resident("auto", CUDA, 3 * 10**9) == (False, "it would take 3.00 GB of 8.00 GB free")
    assert decide.resident("auto", CPU, 10**6)[0] is False


def test_what_is_asked_for_is_done_or_refused():
    for where in (CPU, CUDA):
        assert decide.resident("stream", where, 10**6) == (False, "asked for")
        assert decide.resident("resident", where, 3 * 10**9) == (True, "asked for, 3.00 GB of 8.00 GB free")
        with pytest.raises(InputError, match=r"--data resident: .*9.00 GB of 8.00 GB free.*--data stream"):
            decide.resident("resident", where, 9 * 10**9)


def test_free_memory_is_some_of_the_machines(monkeypatch):
    monkeypatch.undo()
    assert 2**20 < decide._free_bytes(CPU) < 2**50


def test_e_runs_beside_g_where_that_was_measured_to_be_faster(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (9, 0))
    assert decide.overlaps("auto", CUDA) == (True, "the full step was faster on sm_90")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (8, 0))
    assert decide.overlaps("auto", CUDA) == (False, "it was not measured on sm_80")
    assert [decide.overlaps(asked, CUDA) for asked in ("yes", "no")] == [(True, "asked for"), (False, "asked for")]
    assert decide.overlaps("yes", CPU)[0] is False


@pytest.mark.parametrize("fast", [False, True])
def test_amp_on_a_cpu_says_what_it_costs(monkeypatch, fast):
    monkeypatch.setattr(decide, "cpu_has_bf16", lambda: fast)
    dtype, why = decide.dtype(True, CPU)
    assert dtype == torch.bfloat16
    assert (decide.SLOW_BF16 in why) == (not fast)
    assert decide.dtype(False, CPU) == (torch.float32, "--amp is off")
    assert decide.dtype(False, torch.device("cuda"))[1].startswith("--amp is off; convolutions in TF32")
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, False)


def test_bf16_instructions_are_the_processors_own():
    with open("/proc/cpuinfo") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    assert decide.cpu_has_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)


def test_a_device_of_another_name():
    with pytest.raises(InputError, match="device 'gpu': auto, cpu or cuda"):
        decide.device("gpu")


@pytest.mark.parametrize(("version", "compiled"), [("2.11.0+cu130", False), ("2.12.0", True), ("2.13.0+cpu", True)])
def test_torch_2_11_compiles_no_program_for_a_cpu_that_moves_what_it_reads(monkeypatch, version, compiled):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    does, why = decide.compiles(moves_what_it_reads=True)
    assert does is compiled
    assert compiled or "2.12" in why
    assert decide.compiles()[0]
