"""Real runs on the digits: stopped, killed, resumed, lengthened, diverged. Eager, one thread, small batches."""

import errno
import inspect
import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_run import STEPS, TIMES, command, final, in_process, start, ticks
from forked import assert_equal, end_server, wait_for_ticks

from ali_fast import checkpoint, cli, metrics
from ali_fast.config import TrainConfig
from ali_fast.data.schema import beton_path
from ali_fast.live import LiveLine
from ali_fast.model import ALI
from ali_fast.train import tick_steps

pytestmark = pytest.mark.usefixtures("hangs_up")


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    end_server()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Here and in the server, which reads the environment once: before anything starts it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """The run that nobody stopped."""
    run = tmp_path_factory.mktemp("straight")
    process = start(command(data, run))
    process.join(120)
    assert process.exitcode == 0
    return run


def assert_same_run(run: Path, straight: Path) -> None:
    assert_equal(final(run)["step"], final(straight)["step"])
    assert ticks(run) == ticks(straight)
    for name in ("samples", "reconstructions", "interpolations"):
        figure = f"figures/{name}.png"
        assert (run / figure).read_bytes() == (straight / figure).read_bytes()


def test_what_a_run_leaves(straight):
    names = {str(path.relative_to(straight)) for path in straight.rglob("*") if path.is_file()}
    assert {"config.json", "environment.json", "metrics.jsonl", "checkpoints/latest.pt"} <= names
    assert {f"figures/{n}.png" for n in ("samples", "reconstructions", "interpolations")} <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not [name for name in names if name.endswith(".part")]
    lines = metrics.read_metrics(straight / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(10, STEPS + 1, 10))
    for line in lines:
        assert line["total_images"] == 16 * line["step"]
        assert line["epoch"] == pytest.approx(line["step"] / (1297 // 16))
        assert 0 < line["score_data"] < 1
        assert 0 < line["score_sample"] < 1
        assert line["sigma"] > 0
        assert 0 < line["reconstruction_error"] < 1
        assert 0 <= line["data_wait_share"] < 1
        assert line["images_per_second"] > 0
    kept = checkpoint.list_checkpoints(straight / "checkpoints")
    assert [path.name for path in kept] == ["step-00000080.pt", "step-00000050.pt"]
    assert final(straight)["step"]["steps"] == STEPS


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_saves_and_resumes_bit_identically(data, straight, tmp_path, signum, code):
    process = start(command(data, tmp_path, "--checkpoint-ticks", "1000"))
    wait_for_ticks(tmp_path, 2, process.is_alive)
    os.kill(process.pid, signum)
    process.join(60)
    assert process.exitcode == code
    stopped = final(tmp_path)["step"]["steps"]
    assert 20 <= stopped < STEPS
    assert final(tmp_path)["step"]["summed"] == stopped % 10  # the open tick goes on where it was
    process = start(command(data, tmp_path))
    process.join(120)
    assert process.exitcode == 0
    assert_same_run(tmp_path, straight)


def test_killed_again_and_again_is_the_same_run(data, straight, tmp_path):
    kills = 0
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = start(command(data, tmp_path, "--checkpoint-ticks", "1", "--figure-ticks", "1"))
        before = len(metrics.read_metrics(tmp_path / "metrics.jsonl")) if kills else 0
        wait_for_ticks(tmp_path, before + 1, process.is_alive)
        time.sleep(rng.uniform(0, 0.2))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join(60)
    assert kills >= 2
    process = start(command(data, tmp_path))
    process.join(120)
    assert process.exitcode == 0
    assert_same_run(tmp_path, straight)


def test_lengthened_and_with_another_cadence(data, straight, tmp_path):
    for steps in (30, STEPS):
        process = start(command(data, tmp_path, "--keep", "1", steps=steps))
        process.join(120)
        assert process.exitcode == 0
    assert_same_run(tmp_path, straight)
    assert len(checkpoint.list_checkpoints(tmp_path / "checkpoints")) == 1


def test_resident_is_the_same_run(data, straight, tmp_path):
    for more, steps in (([], 30), (["--data", "resident"], STEPS)):
        process = start(command(data, tmp_path, *more, steps=steps))
        process.join(120)
        assert process.exitcode == 0
    assert_same_run(tmp_path, straight)


@pytest.mark.usefixtures("restored")
def test_ranges_for_nsys(data, tmp_path, monkeypatch):
    """On the host, around what they name: a step's range holds the whole step, and every wait precedes one."""
    pushed = []

    class Range:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            pushed.append(self.name)

        def __exit__(self, *_):
            pushed.append(f"/{self.name}")

    monkeypatch.setattr("ali_fast.train.nvtx.annotate", Range)
    assert cli.main(command(data, tmp_path, steps=3)) == 0
    assert pushed == ["data wait", "/data wait", "step", "/step"] * 3
    from ali_fast.record import Recorder

    for method, name in ((Recorder.tick, "tick"), (Recorder.draw, "figures"), (Recorder.save, "checkpoint")):
        assert f'@nvtx.annotate("{name}")' in inspect.getsource(method)  # nothing is left of it while nobody records


def test_minutes_end_the_session_and_the_next_goes_on(data, straight, tmp_path):
    process = start(command(data, tmp_path, "--minutes", "0.01"))
    process.join(120)
    assert process.exitcode == 0
    stopped = final(tmp_path)["step"]["steps"]
    assert 0 < stopped < STEPS
    assert metrics.read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == stopped
    process = start(command(data, tmp_path))
    process.join(120)
    assert_equal(final(tmp_path)["step"]["model"], final(straight)["step"]["model"])
    steps = [line["step"] for line in ticks(tmp_path)]
    assert steps == sorted({*range(10, STEPS + 1, 10), stopped})


@pytest.mark.usefixtures("restored")
def test_minutes_are_not_spent_by_a_first_step_that_compiles(data, tmp_path, monkeypatch, capsys):
    from ali_fast.step import Step

    def compiles(self, *batch):
        if self.steps == 0:
            time.sleep(1.0)
        return take(self, *batch)

    take = Step.__call__
    monkeypatch.setattr(Step, "__call__", compiles)
    assert cli.main(command(data, tmp_path, "--minutes", "0.01")) == 0
    stopped = final(tmp_path)["step"]["steps"]
    assert stopped > 1
    assert f"--minutes are over at step {stopped} of {STEPS}: the same command trains on" in capsys.readouterr().out


@pytest.mark.usefixtures("restored")
def test_the_live_line_knows_when_the_session_ends(data, tmp_path, monkeypatch):
    class Noted(LiveLine):
        def __init__(self, console, *, session_seconds, **more):
            seen.append(session_seconds)
            super().__init__(console, session_seconds=session_seconds, **more)

    seen = []
    monkeypatch.setattr("ali_fast.train.LiveLine", Noted)
    assert cli.main(command(data, tmp_path, "--minutes", "2", steps=1)) == 0
    assert seen == [120.0]


@pytest.mark.usefixtures("restored")
def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, capsys, monkeypatch):
    from ali_fast.step import Step

    def poison(self, *arguments):
        outcome = real(self, *arguments)
        return outcome._replace(metrics=outcome.metrics * float("nan")) if self.steps == 24 else outcome

    real = Step.play
    monkeypatch.setattr(Step, "play", poison)
    code, err = in_process(command(data, tmp_path, "--checkpoint-ticks", "1"), capsys)
    assert code == 1
    assert err.count("\n") == 1
    assert "loss became not finite at step 25" in err
    assert "step-00000020.pt is the last good checkpoint" in err
    assert final(tmp_path)["step"]["steps"] == 20
    assert [line["step"] for line in ticks(tmp_path)] == [10, 20]


@pytest.mark.usefixtures("restored")
def test_weights_noise_and_pictures_are_drawn_apart(data, tmp_path, monkeypatch):
    """They all come of one seed, by generators of one kind."""
    from ali_fast import inference
    from ali_fast.step import Step

    def noise(self, batch):
        z, seeds = real(self, batch)
        seen.append((self, z))
        return z, seeds

    seen, weights = [], []
    real, initialize = Step.noise, ALI.initialize

    def initialized(self, *arguments):
        initialize(self, *arguments)
        weights.extend(p.detach().clone() for p in self.parameters() if p.dim() == 4)

    monkeypatch.setattr(Step, "noise", noise)
    monkeypatch.setattr(ALI, "initialize", initialized)
    assert cli.main(command(data, tmp_path, steps=1)) == 0
    step, z = seen[0]
    draws = [z, inference.normal("z", tuple(z.shape), 0), inference.normal("eps", tuple(z.shape), 0)]
    draws += [p / step.model.architecture.init_std for p in weights if p.numel() >= 64]
    firsts = [tensor.contiguous().flatten()[:64].sort().values for tensor in draws]  # torch draws 16 or more in blocks
    assert len(firsts) > 10
    for a, b in itertools.combinations(firsts, 2):
        assert not torch.isclose(a, b, atol=1e-5).all()


@pytest.mark.usefixtures("restored")
def test_weights_that_are_not_finite_stop_the_run(data, tmp_path, capsys, monkeypatch):
    from ali_fast.step import Step

    def poison(self, batch):
        real(self, batch)
        if self.steps == 30:
            with torch.no_grad():
                next(self.model.decoder.parameters())[0, 0, 0, 0] = float("inf")

    real = Step.__call__
    monkeypatch.setattr(Step, "__call__", poison)
    code, err = in_process(command(data, tmp_path, "--checkpoint-ticks", "1"), capsys)
    assert code == 1
    assert "weights became not finite by step 30" in err
    assert final(tmp_path)["step"]["steps"] == 20


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("ticks", "steps", "saved"), [(1, 20, 10), (1000, 5, 5)], ids=["on the way", "at the end"])
def test_the_checkpoint_is_saved_before_figures_are_drawn(data, tmp_path, monkeypatch, ticks, steps, saved):
    from ali_fast.record import Recorder

    def fail(self):
        raise RuntimeError("no figure")

    monkeypatch.setattr(Recorder, "draw", fail)
    with pytest.raises(RuntimeError, match="no figure"):
        cli.main(command(data, tmp_path, "--checkpoint-ticks", str(ticks), "--figure-ticks", str(ticks), steps=steps))
    assert final(tmp_path)["step"]["steps"] == saved


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("checkpoints", "figures", "saved", "drawn"),
    [(1000, 1, [0, 30], [10, 20, 30]), (1, 1000, [0, 10, 20, 30], [30])],
    ids=["figures", "checkpoints"],
)
def test_each_has_its_own_cadence(data, tmp_path, monkeypatch, checkpoints, figures, saved, drawn):
    """Step 0's checkpoint is a trial; what a tick has drawn the end does not draw again."""
    from ali_fast.record import Recorder

    def save(self, state):
        seen.append(self.step.steps)
        write(self, state)

    seen, drawings, write = [], [], Recorder._write_checkpoint
    monkeypatch.setattr(Recorder, "_write_checkpoint", save)
    monkeypatch.setattr(Recorder, "_write_figures", lambda self: drawings.append(self.step.steps))
    cadence = ["--checkpoint-ticks", str(checkpoints), "--figure-ticks", str(figures)]
    assert cli.main(command(data, tmp_path, *cadence, steps=30)) == 0
    assert (seen, drawings) == (saved, drawn)


@pytest.mark.parametrize(
    ("total", "asked", "expected"),
    [(1000, None, 20), (10**6, None, 1000), (10, None, 1), (1000, 250, 2), (1000, 10, 1)],
)
def test_fifty_ticks_a_run_but_none_of_more_than_100_000_images(tmp_path, total, asked, expected):
    config = TrainConfig(dataset="digits", run_dir=tmp_path, batch_size=100, tick_images=asked)
    assert tick_steps(config, total) == expected


@pytest.mark.usefixtures("restored")
def test_a_damaged_newest_checkpoint_is_passed_over(data, straight, tmp_path, capsys):
    process = start(command(data, tmp_path, "--checkpoint-ticks", "1", steps=50))
    process.join(120)
    newest = checkpoint.list_checkpoints(tmp_path / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert cli.main(command(data, tmp_path)) == 0
    assert "step-00000050.pt is damaged" in capsys.readouterr().out.replace("\n", "")
    assert_same_run(tmp_path, straight)


@pytest.mark.usefixtures("restored")
def test_a_run_is_not_written_down_as_shorter_than_it_is(data, tmp_path):
    assert cli.main(command(data, tmp_path, steps=4)) == 0
    before = (tmp_path / "config.json").read_bytes()
    shutil.rmtree(tmp_path / "figures")
    assert cli.main(command(data, tmp_path, steps=3)) == 0
    assert (tmp_path / "figures" / "samples.png").exists()
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.usefixtures("restored")
def test_no_disk_space(data, tmp_path, capsys):
    assert cli.main(command(data, tmp_path, steps=10)) == 0
    (tmp_path / "checkpoints" / "step-00000020.part").symlink_to("/dev/full")
    capsys.readouterr()
    code, err = in_process(command(data, tmp_path, steps=20), capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert "no space left to write the checkpoint of step 20" in err
    assert final(tmp_path)["step"]["steps"] in (10, 20)  # the first attempt cleared what was in the way of the second
    assert cli.main(command(data, tmp_path, steps=20)) == 0
    assert final(tmp_path)["step"]["steps"] == 20
    assert [line["step"] for line in ticks(tmp_path)] == [10, 20]


@pytest.mark.usefixtures("restored")
def test_data_damaged_under_a_run_ends_it_with_a_saved_checkpoint(data, tmp_path, capsys):
    assert cli.main(["prepare", "digits", "--data-dir", str(tmp_path / "data")]) == 0
    run = tmp_path / "run"
    process = start(command(tmp_path / "data", run, "--checkpoint-ticks", "1000", steps=100_000))
    wait_for_ticks(run, 2, process.is_alive)
    beton = beton_path(tmp_path / "data", "digits", "train")
    os.truncate(beton, beton.stat().st_size - 1000)
    process.join(60)
    assert process.exitcode == 2
    assert final(run)["step"]["steps"] >= 20
    code, err = in_process(command(tmp_path / "data", run, steps=100_000), capsys)
    assert code == 2
    assert "prepare digits --force" in err


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    "what",
    ["figures.write_png", "record.TensorBoard.add_tick", "live.LiveLine.tick"],
    ids=["figures", "metrics", "console"],
)
def test_what_cannot_be_written_beside_costs_no_step(data, tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"ali_fast.{what}", full)
    run = tmp_path / "run"
    assert cli.main(command(data, run, "--checkpoint-ticks", "1000", "--figure-ticks", "1", steps=30)) == 2
    assert final(run)["step"]["steps"] > 0


@pytest.mark.usefixtures("restored")
def test_a_reader_that_fails_costs_no_step(data, tmp_path, monkeypatch):
    """Whatever its cause: this one keeps its traceback."""
    from ali_fast.data.ffcv_stream import ReaderError, Stream

    def boom(self, number, *rest):
        if number == 12:
            raise ZeroDivisionError("boom")
        return run_pipeline(self, number, *rest)

    run_pipeline = Stream.run_pipeline
    monkeypatch.setattr(Stream, "run_pipeline", boom)
    with pytest.raises(ReaderError):
        cli.main(command(data, tmp_path / "run", "--checkpoint-ticks", "1000", steps=30))
    assert final(tmp_path / "run")["step"]["steps"] == 12


def test_json_of_a_run_and_its_description(straight, tmp_path):
    assert cli.main(["describe", "--dataset", "digits", "--json", str(tmp_path / "d.json")]) == 0
    assert set(json.loads((tmp_path / "d.json").read_text())) >= {"encoder", "decoder", "discriminator"}


def test_a_run_of_one_step_says_nothing_of_its_speed(data, tmp_path):
    assert cli.main(command(data, tmp_path / "run", "--json", str(tmp_path / "line.json"), steps=1)) == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads((tmp_path / "line.json").read_text(), parse_constant=refuse)
    assert line["step"] == 1
    assert not TIMES - {"seconds"} & line.keys()


@pytest.mark.usefixtures("restored")
def test_json_of_a_finished_run_is_its_last_line(data, straight, tmp_path):
    before = metrics.read_metrics(straight / "metrics.jsonl")
    assert cli.main(command(data, straight, "--json", str(tmp_path / "line.json"))) == 0
    assert json.loads((tmp_path / "line.json").read_text()) == before[-1]
    assert metrics.read_metrics(straight / "metrics.jsonl") == before
