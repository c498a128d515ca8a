"""What `train` refuses, each in one line."""

import dataclasses
import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from digits_run import command, final, in_process, start
from forked import end_server, wait_for_ticks

from ali_fast import checkpoint, cli, presets
from ali_fast.data.schema import beton_path, manifest_path, read_manifest
from ali_fast.errors import InputError

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    end_server()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("trained")
    assert cli.main(command(data, run, steps=1)) == 0
    return run


def test_bad_input_is_one_line_and_exit_code_2(data, trained, tmp_path, capsys, monkeypatch):
    good = command(data, trained)

    def refused(arguments, *parts):
        code, err = in_process(arguments, capsys)
        assert code == 2
        assert err.count("\n") == 1
        for part in parts:
            assert part in err

    refused(["train", "--dataset", "mnist"], "unknown data set 'mnist'", "digits, ", "cifar10")
    refused(["describe", "--dataset", "digits", "--preset", "large"], "no preset 'large'", "one of digits")
    refused([*good, "--batch-size", "0"], "--batch-size 0")
    refused([*good[:-2], "--steps", "9", "--epochs", "9"], "--epochs and --steps")
    fresh = command(data, tmp_path / "fresh")
    refused([*fresh, "--batch-size", "5000"], "5000", "1297")
    refused([*fresh, "--learning-rate", "inf"], "--learning-rate inf: must be a number above 0")
    assert not (tmp_path / "fresh").exists()
    refused(
        [*good, "--seed", "4", "--learning-rate", "0.5"], "seed: 0 -> 4", "learning_rate: 0.0002 -> 0.5", str(trained)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused([*fresh, "--device", "cuda"], "--device cuda")
    refused(["sample", str(tmp_path)], "is no run directory")
    refused(["export", str(tmp_path / "fresh")], "is no run directory")


def test_flags_are_checked_before_data_are_prepared_for_them(trained, tmp_path, capsys):
    """Which may take hours."""
    absent = tmp_path / "absent"
    for run, more, words in (
        (trained, ["--seed", "4"], "seed: 0 -> 4"),
        (tmp_path / "run", ["--kernels", "trition"], "--kernels trition"),
        (tmp_path / "run", ["--objective", "inverse", "--decoder-from", "gan"], "gan is no run directory"),
    ):
        code, err = in_process(command(absent, run, *more), capsys)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
    assert not absent.exists()
    assert not (tmp_path / "run").exists()


def test_a_start_that_was_broken_off_binds_nobody(data, tmp_path, capsys, monkeypatch):
    """Before a step is done there is nothing to resume."""
    from ali_fast import train

    def fail(*_):
        raise InputError("the first batch cannot be read")

    with monkeypatch.context() as broken:
        broken.setattr(train, "loop", fail)
        code, err = in_process(command(data, tmp_path, "--seed", "4"), capsys)
    assert (code, "the first batch" in err) == (2, True)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert cli.main(command(data, tmp_path, steps=2)) == 0
    assert final(tmp_path)["step"]["steps"] == 2


def test_more_than_the_kernels_can_count_is_refused(data, tmp_path, capsys, monkeypatch):
    """The digits' largest map has 64 x 6 x 6 elements an image; D sees twice as many images."""
    from ali_fast import training_data

    largest = presets.resolve("digits").architecture.largest_map
    monkeypatch.setattr(training_data, "MOST_ELEMENTS", 2 * 16 * largest)
    assert cli.main(command(data, tmp_path / "fits", steps=1)) == 0
    monkeypatch.setattr(training_data, "MOST_ELEMENTS", 2 * 16 * largest - 1)
    assert in_process(command(data, tmp_path / "large", steps=1), capsys) == (
        2,
        "ali-fast: --batch-size 16: preset digits takes at most 15 on one device\n",
    )


@pytest.mark.parametrize("hidden", ["run", "run/checkpoints"])
def test_a_run_that_may_not_be_read_is_not_taken_for_none(data, tmp_path, capsys, monkeypatch, hidden):
    """To root everything may be read."""
    run = tmp_path / "run"
    assert cli.main(command(data, run, steps=10)) == 0
    before = {path: path.read_bytes() for path in (run / "config.json", run / "metrics.jsonl")}
    capsys.readouterr()

    def guarded(function):
        def refuse(path=".", *more):
            if path in (tmp_path / hidden, os.fspath(tmp_path / hidden)):  # a number is a descriptor, of rmtree's
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return function(path, *more)

        return refuse

    with monkeypatch.context() as patch:
        for name in ("scandir", "listdir"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        for arguments in (command(data, run, "--seed", "7", steps=20), ["sample", str(run)]):
            assert in_process(arguments, capsys) == (2, f"ali-fast: Permission denied: {tmp_path / hidden}\n")
    assert {path: path.read_bytes() for path in before} == before
    assert cli.main(command(data, run, steps=20)) == 0
    assert final(run)["step"]["steps"] == 20


def test_checkpoint_of_another_network(data, tmp_path, capsys):
    assert cli.main(command(data, tmp_path, steps=1)) == 0
    newest = checkpoint.list_checkpoints(tmp_path / "checkpoints")[0]
    state = checkpoint.read(newest)
    model = state["step"]["model"]
    name = next(iter(model))
    model[name] = model[name][:-1].clone()
    torch.save(state, newest)
    capsys.readouterr()
    for arguments in (command(data, tmp_path, steps=2), ["sample", str(tmp_path)]):
        code, err = in_process(arguments, capsys)
        assert code == 2
        assert err.count("\n") == 1
        assert "checkpoint of another network" in err
        assert name in err


def test_other_data_than_the_run_began_with_is_refused(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    for steps in (1, 2):  # prepared twice from one source it is the same data
        assert cli.main(["prepare", "digits", "--force", "--data-dir", str(data)]) == 0
        assert cli.main(command(data, run, steps=steps)) == 0
    beton = beton_path(data, "digits", "train")
    manifest = read_manifest(beton)
    manifest_path(beton).write_text(dataclasses.replace(manifest, sha256="0" * 64).to_json())
    before = (run / "config.json").read_bytes()
    capsys.readouterr()
    code, err = in_process(command(data, run, steps=3), capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert f"trained under other conditions (train_sha256: {manifest.sha256[:16]} -> {'0' * 16})" in err
    assert (run / "config.json").read_bytes() == before
    newest = checkpoint.list_checkpoints(run / "checkpoints")[0]
    state = checkpoint.read(newest)
    del state["conditions"]["train_sha256"]  # as the versions wrote it that did not compare
    torch.save(state, newest)
    assert cli.main(command(data, run, steps=3)) == 0
    assert final(run)["conditions"]["train_sha256"] == "0" * 16


def test_a_second_training_in_the_same_directory_says_so(data, tmp_path, capsys):
    process = start(command(data, tmp_path, steps=100_000))
    wait_for_ticks(tmp_path, 1, process.is_alive)
    code, err = in_process(command(data, tmp_path, steps=100_000), capsys)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert code == 2
    assert "another training is running" in err
