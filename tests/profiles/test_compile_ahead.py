"""Compiling ahead: which steps, and that one which fails stops none. What it gains awaits a GPU."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from profiles import compile_ahead

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def here(monkeypatch):
    """Rows are compiled by what is given, in threads of this process."""
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "2")
    monkeypatch.setattr(
        compile_ahead, "ProcessPoolExecutor", lambda workers, mp_context, max_tasks_per_child: ThreadPoolExecutor(1)
    )
    return lambda compile_row: monkeypatch.setattr(compile_ahead, "compile_row", compile_row)


def test_every_compiled_row_once_and_nearest_to_train_first(monkeypatch):
    monkeypatch.setattr("ali_fast.decide.dtype", lambda amp, where: (torch.bfloat16, ""))
    monkeypatch.setattr("ali_fast.decide.device_class", lambda where: "sm_90")
    found = [*compile_ahead.jobs(["cifar10"], ["svhn", "cifar10", "celeba"], CUDA, True)]
    assert [preset for preset, _ in found[:3]] == ["cifar10", "svhn", "celeba"]
    assert len({row for _, row in found[:3]}) == 1
    assert found[0][1].startswith("as train")
    assert {preset for preset, _ in found[3:]} == {"cifar10"}
    names = [row for _, row in found[3:]]
    assert names[0] == "weight gradients beside"
    assert names[-1] == "compiled, default options"
    assert len(set(names)) == len(names) == 8
    assert [*compile_ahead.jobs(["digits"], [], CPU, False)] == [
        ("digits", "compiled (as train)"),
        ("digits", "compiled, Inductor's own kernels"),
    ]


def test_one_that_fails_is_named_and_the_others_go_on(here, capsys):
    def compile_row(preset, row, device_type, amp):
        if preset == "digits":
            raise ValueError("out of memory")
        return 12.0

    here(compile_row)
    compile_ahead.main(["--preset", "digits", "--ends", "fashion-mnist-small", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert printed.count("out of memory") == 2
    assert "fashion-mnist-small: compiled (as train): 12 s" in printed


def test_a_row_is_started_by_its_name(monkeypatch):
    started = []
    monkeypatch.setattr(compile_ahead, "start", lambda row, preset, batch, device: started.append((row.name, batch)))
    assert compile_ahead.compile_row("digits", "compiled (as train)", "cpu", False) < 60
    assert started == [("compiled (as train)", 100)]


def test_a_network_that_is_not_there_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        compile_ahead.main(["--ends", "mnist"])
    assert end.value.code == 2
    assert "--ends mnist: of cifar10" in capsys.readouterr().err
