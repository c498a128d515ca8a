"""Every trial logged and ranked; a search resumes; its proposal parses as a command."""

import dataclasses
import json
import math
import shlex
from pathlib import Path

import pytest
from alone import SIZES

from ali_fast import cli
from ali_fast.mixture import config as configuration
from ali_fast.mixture import search
from ali_fast.mixture.config import RunConfig, SearchConfig


def trial(run, near, quality, kl):
    return {"run": run, "modes_2500": {"near": near, "high_quality": quality, "reverse_kl_near": kl, "reverse_kl": 9}}


def test_shortfall_is_zero_at_the_goal_and_counts_each_part():
    assert search.shortfall(trial(0, 25, 0.97, 0.03)) == 0
    assert search.shortfall(trial(0, 20, 0.95, 0.04)) == pytest.approx(0.2)
    assert search.shortfall(trial(0, 25, 0.475, 0.04)) == pytest.approx(0.5)
    assert search.shortfall(trial(0, 25, 1.0, 0.14)) == pytest.approx(0.1)
    assert search.shortfall(trial(0, 0, 0.0, None)) == pytest.approx(2 + math.log(25) - 0.04)  # as of one mode alone
    assert search.shortfall({"modes_2500": None}) is None


def test_the_diverged_rank_last():
    trials = [{"run": 0, "shortfall": None}, {"run": 1, "shortfall": 0.5}, {"run": 2, "shortfall": 0.1}]
    assert [t["run"] for t in search.ranked(trials)] == [2, 1, 0]


@pytest.mark.usefixtures("few_samples")
def test_a_search_logs_every_trial_and_one_that_diverged(data_dir, tmp_path, console, monkeypatch):
    config = SearchConfig(
        data_dir=data_dir,
        run_dir=tmp_path / "search",
        trials=5,
        at_once=2,
        epochs=2,
        batch_size=50,
        compile=False,
        device="cpu",
    )
    settings = list(config.settings())
    settings[3] = dataclasses.replace(settings[3], learning_rate=1e30)
    monkeypatch.setattr(configuration.SearchConfig, "settings", lambda self: tuple(settings))
    found = search.search(config, console, SIZES)
    assert sorted(t["run"] for t in found["trials"]) == [0, 1, 2, 3, 4]
    assert found["trials"][-1]["run"] == 3
    assert found["trials"][-1]["status"].startswith("diverged at step")
    for t in found["trials"]:
        assert t["setting"] == dataclasses.asdict(settings[t["run"]])
    shortfalls = [t["shortfall"] for t in found["trials"][:-1]]
    assert shortfalls == sorted(shortfalls)
    assert json.loads((config.run_dir / "results.json").read_text())["trials"] == found["trials"]
    again = search.search(config, console, SIZES)  # everything is there: the same numbers
    assert again["trials"] == found["trials"]


def test_the_proposal_is_a_command_with_the_trials_setting():
    config = SearchConfig(seed=3, batch_size=200)
    best = {"setting": dataclasses.asdict(config.settings()[0])}
    words = shlex.split(search.confirmation(config, best))
    assert words[:3] == ["ali-fast", "mixture", "run"]
    asked = cli.parse(words[1:]).command
    assert (asked.epochs, asked.runs, asked.batch_size, asked.methods) == (400, 10, 200, ("ali",))
    assert asked.seed != config.seed
    for name, value in best["setting"].items():
        assert math.isclose(getattr(asked, name), value, rel_tol=1e-3)
    assert not asked.inference
    assert isinstance(asked, RunConfig)


def test_the_proposal_multiplies_as_the_search_and_reads_its_data():
    config = SearchConfig(tf32=True, data_dir=Path("data of mine"), run_dir=Path("a search"))
    best = {"setting": dataclasses.asdict(config.settings()[0])}
    asked = cli.parse(shlex.split(search.confirmation(config, best))[1:]).command
    assert asked.tf32
    assert (asked.data_dir, asked.run_dir) == (Path("data of mine"), Path("a search-confirmed"))
