"""Small stacks in float64, three members with settings of their own; lets the tests here import alone.py."""

import functools
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ali_fast.mixture import grid, protocol, sampling
from ali_fast.mixture.config import RunConfig
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.step import Step

sys.path.insert(0, str(Path(__file__).parent))

from alone import BATCH, POINTS, SETTINGS, SIZES, STEPS


@pytest.fixture
def points():
    return torch.from_numpy(grid.sample(POINTS, np.random.default_rng(0))[0])


@pytest.fixture
def rows():
    """int64 [steps, members, batch]."""
    return torch.randint(POINTS, (STEPS, len(SETTINGS), BATCH), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make_step(points):
    def make(name, members=(0, 1, 2), settings=SETTINGS, device="cpu", **options):
        model = MODELS[name](len(members), SIZES).double()
        model.initialize([10 + i for i in members], [settings[i].init_std for i in members])
        seeds = [100 + i for i in members]
        options = {"total_steps": STEPS, "compile": False} | options
        return Step(model, points.to(device), [settings[i] for i in members], seeds, **options)

    return make


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A small mixture, prepared as the large one is."""
    import data_prep
    from data_prep import mixture

    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "COUNTS", {"train": 400, "valid": 300, "test": 10})
        data_prep.prepare("mixture", data_dir=folder)
    return folder


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def make_config(data_dir, tmp_path):
    return functools.partial(config_of, data_dir, tmp_path / "run")


def config_of(data_dir, run_dir, **options):
    options = {"run_dir": run_dir, "epochs": 3, "batch_size": 50, "runs": 3} | options
    return RunConfig(data_dir=data_dir, compile=False, device="cpu", **options)


@pytest.fixture(scope="session")
def few_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "SAMPLES", 600)
        patch.setattr(sampling, "PACGAN_SAMPLES", 200)
        yield


@pytest.fixture(scope="session")
def whole(data_dir, few_samples, tmp_path_factory):
    """The configuration of a protocol that ran to its end, unstopped."""
    config = config_of(data_dir, tmp_path_factory.mktemp("protocol") / "whole")
    protocol.run(config, Console(file=io.StringIO()), SIZES)
    return config
