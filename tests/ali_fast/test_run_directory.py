import os
import shutil
import signal
from pathlib import Path

import pytest

from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.run_directory import MIXTURE, TRAINING, RunDirectory


def config(path: Path, **changed) -> TrainConfig:
    return TrainConfig(dataset="digits", run_dir=path, data_dir=path / "data", **changed).resolved()


def test_adopt_again_lengthened_and_with_another_cadence(tmp_path):
    run = RunDirectory(tmp_path / "a")
    with run.locked():
        longer = config(run.path, epochs=9, tick_images=100, keep=5, checkpoint_ticks=1, minutes=2.0)
        for asked in (config(run.path), config(run.path), longer):
            run.check_training(asked)
            run.adopt(asked)
            (run.checkpoints / "step-00000000.pt").touch()
    assert run.read_config() == longer


def test_another_configuration_names_the_fields_and_changes_nothing(tmp_path):
    run = RunDirectory(tmp_path / "a")
    with run.locked():
        run.adopt(config(run.path))
        (run.checkpoints / "step-00000000.pt").touch()
        before = run.config.read_bytes()
        with pytest.raises(InputError, match=r"batch_size: 100 -> 50; learning_rate: 0.0002 -> 0.001") as caught:
            run.check_training(config(run.path, batch_size=50, learning_rate=1e-3, epochs=3))
        assert "epochs" not in str(caught.value)
        assert run.config.read_bytes() == before


def test_a_mistyped_flag_binds_nobody(tmp_path):
    run = RunDirectory(tmp_path / "a")
    with run.locked():
        run.adopt(config(run.path, batch_size=5000))
        run.check_training(config(run.path))


def test_nothing_is_left_of_a_run_that_was_refused(tmp_path):
    run = RunDirectory(tmp_path / "a")
    with pytest.raises(InputError, match="no"), run.locked():
        raise InputError("no")
    assert not run.path.exists()
    run.path.mkdir()
    with pytest.raises(InputError, match="no"), run.locked():
        raise InputError("no")
    assert run.path.exists()  # it was somebody's
    with pytest.raises(InputError, match="no"), run.locked():
        shutil.rmtree(run.path)
        raise InputError("no")
    with run.locked():
        run.adopt(config(run.path))
    assert run.read_config() == config(run.path)


def test_checkpoints_without_their_configuration_are_nobodys_to_resume(tmp_path):
    run = RunDirectory(tmp_path)
    run.adopt(config(tmp_path))
    (run.checkpoints / "step-00000004.pt").touch()
    run.config.unlink()
    for refused in (lambda: run.check_training(config(tmp_path, seed=5)), run.read_config):
        with pytest.raises(InputError, match=r"has checkpoints but no config\.json: restore it"):
            refused()


def test_a_run_of_the_other_command_is_left_alone(tmp_path):
    for place, own, command in (("checkpoints", MIXTURE, "train"), ("ali/checkpoints", TRAINING, "mixture")):
        run = RunDirectory(tmp_path / command)
        (run.path / place).mkdir(parents=True)
        (run.path / place / "step-00000001.pt").touch()
        run.config.touch()
        with pytest.raises(InputError, match=f"holds a run of ali-fast {command}: give another"):
            run.check(own, lambda: [])
    with pytest.raises(InputError, match="holds a run of ali-fast mixture"):
        run.read_config()


def test_a_run_in_a_folder_of_a_run_makes_it_no_mixture(tmp_path):
    outer, inner, shelf = RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "a" / "b"), RunDirectory(tmp_path)
    for run in (outer, inner):
        with run.locked():
            run.adopt(config(run.path))
            (run.checkpoints / "step-00000001.pt").touch()
    assert outer.read_config() == config(outer.path)
    for kind in (TRAINING, MIXTURE):
        shelf.check(kind, lambda: pytest.fail("no run was begun there"))


def test_an_export_is_no_run(tmp_path):
    (tmp_path / "decoder.safetensors").touch()
    with pytest.raises(InputError, match="is an export, and a run is wanted: give the one that it was made of"):
        RunDirectory(tmp_path).read_config()


def test_two_trainings_and_a_killed_one(tmp_path):
    run = RunDirectory(tmp_path / "a")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with run.locked():
            os.write(writer, b"in")
            signal.pause()
    try:
        assert os.read(reader, 2) == b"in"
        with pytest.raises(InputError, match="another training is running"), run.locked():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with run.locked():  # the kill left no lock behind
        pass


def test_no_run_and_foreign_config(tmp_path):
    with pytest.raises(InputError, match="is no run directory"):
        RunDirectory(tmp_path / "absent").read_config()
    (tmp_path / "config.json").write_text('{"model": "resnet"}')
    with pytest.raises(InputError, match=r"config.json: .*unknown fields model"):
        RunDirectory(tmp_path).read_config()


@pytest.mark.parametrize("text", [b"\xff\xfe", b'{"dataset": "dig', b"[]", b'{"dataset": "digits", "data_dir": 5}'])
def test_a_damaged_configuration_is_named_with_what_to_do(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=r"config.json: .*restore it from a copy, or use another run directory"):
        RunDirectory(tmp_path).read_config()


def test_a_file_is_no_run_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "run"):
        with pytest.raises(InputError, match="give a directory, or a new name"), RunDirectory(path).locked():
            pass
    assert file.read_text() == "mine"


def test_a_name_that_is_no_text_is_refused_before_anything_is_made(tmp_path):
    """TensorBoard cannot write there."""
    run = RunDirectory(Path(os.fsdecode(os.fsencode(tmp_path) + b"/run-\xff")))
    with pytest.raises(InputError, match="not UTF-8"), run.locked():
        pass
    assert not list(tmp_path.iterdir())
