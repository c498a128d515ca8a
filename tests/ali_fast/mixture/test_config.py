"""Defaults are the protocol's; what was given is taken, what was not is drawn; mistakes are named."""

import dataclasses
import json
from pathlib import Path

import pytest

from ali_fast.errors import InputError
from ali_fast.mixture import config as configuration
from ali_fast.mixture.config import RunConfig, SearchConfig
from ali_fast.mixture.setting import RECOMMENDED, Setting, draw_protocol


def test_defaults_are_the_papers_protocol():
    config = RunConfig()
    assert (config.runs, config.epochs, config.batch_size, config.methods) == (10, 200, 100, ("ali", "gan"))
    assert config.settings() == tuple(draw_protocol(0, i) for i in range(10))
    assert len({setting.learning_rate for setting in config.settings()}) == 10


def test_what_is_given_is_taken_and_the_rest_drawn():
    one = Setting(learning_rate=1e-4, beta1=0.2, init_std=0.02)
    fixed = RunConfig(learning_rate=1e-4, beta1=0.2, init_std=0.02)
    assert fixed.settings() == (one,) * 10
    part = RunConfig(runs=2, beta1=0.0, decay_from=0.5)
    assert part.settings() == tuple(
        dataclasses.replace(draw_protocol(0, i), beta1=0.0, decay_from=0.5) for i in range(2)
    )


def test_the_recommended_setting_is_for_every_run_and_what_is_given_changes_it():
    assert RunConfig(recommended=True, runs=3).settings() == (RECOMMENDED,) * 3
    changed = dataclasses.replace(RECOMMENDED, gradient_penalty=0.0)
    assert RunConfig(recommended=True, runs=1, gradient_penalty=0.0).settings() == (changed,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "--runs 0: must be at least 1"),
        ({"epochs": 0}, "--epochs 0: must be at least 1"),
        ({"batch_size": -1}, "--batch-size -1: must be at least 2"),
        ({"seed": -1}, "--seed -1"),
        ({"methods": ("ali", "began")}, "--methods began: there are ali and gan"),
        ({"methods": ()}, "at least one"),
        ({"methods": ("ali", "ali")}, "name each method once"),
        ({"beta1": 1.0}, "--beta1 1.0"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        RunConfig(**options)


def test_search_checks_its_own():
    assert len(SearchConfig(trials=7).settings()) == 7
    for name in ("trials", "at_once"):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} 0"):
            SearchConfig(**{name: 0})


def test_a_resumed_run_may_move_but_not_change():
    old = json.loads(configuration.to_json(RunConfig()))
    assert configuration.differences(old, RunConfig()) == []
    moved = RunConfig(run_dir=Path("elsewhere"), data_dir=Path("there"), device="cpu", compile=False)
    assert configuration.differences(old, moved) == []
    more_wanted = RunConfig(methods=("gan",), inference=False)  # no trained model is another by it
    assert configuration.differences(old, more_wanted) == []
    assert configuration.differences(old, RunConfig(epochs=3, tf32=True)) == ["epochs: 200 -> 3", "tf32: False -> True"]
    assert any(line.startswith("command: run -> search") for line in configuration.differences(old, SearchConfig()))
