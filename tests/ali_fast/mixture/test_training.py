"""Orders, resuming, signals, and what is written on the way."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from alone import SETTINGS, SIZES

from ali_fast.data.order import Order
from ali_fast.errors import Interrupted
from ali_fast.mixture import sampling, training
from ali_fast.mixture.training import Job, Place
from ali_fast.signals import Signals

JOB = Job("ali", SETTINGS, (1, 2, 3), epochs=3, batch_size=50, sizes=SIZES)


@pytest.fixture
def train(tmp_path, points, console, monkeypatch):
    monkeypatch.setattr(sampling, "SAMPLES", 500)

    def run(job=JOB, folder="run"):
        with Signals() as signals:
            return training.train(job, points.float(), Place(tmp_path / folder, console, signals, compile=False))

    return run


def stop_at(monkeypatch, steps):
    """SIGTERM as soon as so many steps are done."""
    advance = training._Log.advance

    def with_signal(log):
        advance(log)
        if log.step.steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training._Log, "advance", with_signal)


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_member_goes_through_the_points_in_its_own_order():
    orders = [Order(23, 5, seed) for seed in (4, 5)]
    rows = training.epoch_rows(orders, 2)
    assert rows.shape == (4, 2, 5)
    for r, order in enumerate(orders):
        assert np.array_equal(rows[:, r].flatten(), order.epoch(2))
    assert not torch.equal(rows[:, 0], rows[:, 1])


def test_training_learns_and_writes_a_line_an_epoch(train, tmp_path, points):
    """The VAE's bound improves on a model that has not trained; every line stands once, per member."""
    setting = dataclasses.replace(SETTINGS[0], beta1=0.9)
    trained = train(Job("vae", (setting,) * 2, (1, 2), epochs=12, batch_size=50, sizes=SIZES))
    assert (trained.steps, trained.first_bad) == (120, [None, None])
    found = lines(tmp_path / "run")
    assert [line["epoch"] for line in found] == list(range(1, 13))
    assert all(last < first - 0.5 for first, last in zip(found[0]["loss"], found[-1]["loss"], strict=True))
    assert all(len(line[name]) == 2 for line in found for name in ("loss", "kl", "covered", "near", "reverse_kl_near"))


@pytest.mark.parametrize(("at", "ticks"), [(17, [10]), (20, [10, 20]), (30, [10, 20, 30])])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(train, tmp_path, monkeypatch, at, ticks):
    """Also where an epoch ends: its line stands before its checkpoint."""
    straight = train(folder="straight")
    with monkeypatch.context() as patch:
        stop_at(patch, at)
        with pytest.raises(Interrupted) as stopped:
            train()
    assert stopped.value.exit_code == 143
    assert [line["step"] for line in lines(tmp_path / "run")] == ticks
    resumed = train()
    assert resumed.steps == straight.steps == 30
    assert same(resumed.model, straight.model)
    without = ("seconds", "step_ms")
    first, second = (
        [{k: v for k, v in line.items() if k not in without} for line in lines(tmp_path / name)]
        for name in ("straight", "run")
    )
    assert first == second
    assert same(train().model, straight.model)  # complete: nothing more is trained


def test_a_member_that_diverges_does_not_end_the_others(train, tmp_path, console):
    sick = (SETTINGS[0], dataclasses.replace(SETTINGS[1], learning_rate=1e30), SETTINGS[2])
    trained = train(dataclasses.replace(JOB, settings=sick))
    healthy = train(folder="healthy")
    assert trained.first_bad[0] is None
    assert trained.first_bad[1] is not None
    for r in (0, 2):
        pairs = zip(trained.model.state_dict().values(), healthy.model.state_dict().values(), strict=True)
        assert all(torch.equal(a[r], b[r]) for a, b in pairs)
    found = sampling.covered(trained.model, JOB.seeds, 500)
    assert found[1] is None
    assert found[0] == sampling.covered(healthy.model, JOB.seeds, 500)[0]
    assert lines(tmp_path / "run")[-1]["covered"][1] is None
    assert "diverged: run 1" in console.file.getvalue()


def test_when_all_have_diverged_training_ends(train):
    sick = tuple(dataclasses.replace(setting, learning_rate=1e30) for setting in SETTINGS)
    trained = train(dataclasses.replace(JOB, settings=sick, epochs=50))
    assert None not in trained.first_bad
    assert trained.steps < 500


@pytest.fixture
def a_second_a_step(monkeypatch, hand_clock):
    def step(self, rows):
        hand_clock.now += 1.0
        take(self, rows)

    take = training.Step.__call__
    monkeypatch.setattr(training.Step, "__call__", step)
    return hand_clock


def test_a_checkpoint_a_period_and_one_at_the_end(train, monkeypatch, a_second_a_step):
    def save(directory, step, *more, **options):
        saved.append(step)

    saved = []
    monkeypatch.setattr(training.checkpoint, "save", save)
    monkeypatch.setattr(training, "SAVE_SECONDS", 7.5)
    train()
    assert saved == [8, 16, 24, 30]


def test_seconds_are_of_all_sessions_and_nothing_between_them(train, tmp_path, monkeypatch, a_second_a_step):
    with monkeypatch.context() as patch:
        stop_at(patch, 17)
        with pytest.raises(Interrupted):
            train()
    a_second_a_step.now += 1000.0
    assert train().seconds == 30.0
    assert [line["seconds"] for line in lines(tmp_path / "run")] == [10.0, 20.0, 30.0]


def test_a_steps_time_is_without_the_sampling_of_ticks(train, tmp_path, monkeypatch, a_second_a_step):
    def slow(*arguments):
        a_second_a_step.now += 50.0
        return covered(*arguments)

    covered = sampling.covered
    monkeypatch.setattr(sampling, "covered", slow)
    train()
    assert [line["step_ms"] for line in lines(tmp_path / "run")] == [1000.0] * 3
