"""Draws are functions of their seeds and fill their ranges; settings are checked."""

import math

import numpy as np
import pytest

from ali_fast.errors import InputError
from ali_fast.mixture import setting
from ali_fast.mixture.setting import Setting, draw_protocol, draw_search, member_seed


def test_a_draw_depends_on_seed_and_index_alone():
    assert draw_protocol(3, 4) == draw_protocol(3, 4)
    assert len({draw_protocol(seed, i) for seed in range(5) for i in range(5)}) == 25
    assert draw_search(0, 0) != draw_search(0, 1)


def test_draws_are_uniform_over_their_ranges():
    draws = [draw_protocol(0, i) for i in range(4000)]
    low, high = map(math.log, setting.LEARNING_RATE_RANGE)
    rates = (np.log([d.learning_rate for d in draws]) - low) / (high - low)
    betas = np.array([d.beta1 for d in draws]) / setting.BETA1_RANGE[1]
    low, high = map(math.log, setting.INIT_STD_RANGE)
    stds = (np.log([d.init_std for d in draws]) - low) / (high - low)
    for shares in (rates, betas, stds):
        assert 0 <= shares.min() < 0.01
        assert 0.99 < shares.max() <= 1
        assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(np.stack([rates, betas, stds])) - np.eye(3)).max() < 0.05


def test_search_starts_with_the_codes_setting_read_both_ways():
    assert [draw_search(seed, i) for seed in (0, 7) for i in (0, 1)] == [Setting(beta1=0.8), Setting(beta1=0.2)] * 2


def test_search_decays_all_others_blurs_half_and_damps_half_of_either():
    draws = [draw_search(0, i) for i in range(2, 402)]
    assert all(0.2 <= d.decay_from <= 0.9 for d in draws)
    assert [d.instance_noise > 0 for d in draws] == [False, True] * 200
    assert [d.gradient_penalty > 0 for d in draws] == [True, True, False, False] * 100
    assert len({d.learning_rate for d in draws}) == 400


def test_member_seeds_are_distinct_and_fit_int64():
    seeds = {member_seed(0, model, i) for model in ("ali", "gan") for i in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("beta1", 1.0),
        ("beta1", -0.1),
        ("init_std", 0.0),
        ("init_std", math.inf),
        ("discriminator_rate", 0.0),
        ("decay_from", 0.0),
        ("decay_from", 1.5),
        ("instance_noise", -1.0),
        ("noise_until", 0.0),
        ("noise_until", 1.01),
        ("gradient_penalty", -0.1),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')} {value}"):
        Setting(**{field: value})
