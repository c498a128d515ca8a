"""Small stacks in float64, three members with settings of their own; lets the tests here import alone.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ali_fast.mixture import grid
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
    def make(name, members=(0, 1, 2), settings=SETTINGS, **options):
        model = MODELS[name](len(members), SIZES).double()
        model.initialize([10 + i for i in members], [settings[i].init_std for i in members])
        seeds = [100 + i for i in members]
        options = {"total_steps": STEPS, "compile": False} | options
        return Step(model, points, [settings[i] for i in members], seeds, **options)

    return make


@pytest.fixture(params=MODELS)
def name(request):
    return request.param
