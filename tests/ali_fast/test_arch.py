"""The tables against the paper's totals, and the counting against torch."""

import pytest
import torch

from ali_fast import arch, presets
from ali_fast.kernels import resolve
from ali_fast.model import ALI

PAPER_PARAMETERS = {
    "cifar10": (3_118_496, 981_152, 2_611_009),
    "svhn": (3_315_488, 1_767_584, 5_283_073),
    "celeba": (6_794_880, 11_811_392, 15_189_057),
    "imagenet64": (7_812_352, 3_164_224, 32_985_793),
}


@pytest.mark.parametrize("name", PAPER_PARAMETERS)
def test_parameters_are_the_papers(name):
    places = presets.resolve(name).architecture.layouts()
    totals = {network: sum(place.parameters for place in table) for network, table in places.items()}
    discriminator = sum(v for k, v in totals.items() if k.startswith("discriminator"))
    assert (totals["encoder"], totals["decoder"], discriminator) == PAPER_PARAMETERS[name]


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda p: p.name)
def test_tables_count_what_the_modules_hold(preset):
    with torch.device("meta"):
        model = ALI(preset.architecture, resolve("eager", "cpu"))
    for name, table in preset.architecture.layouts().items():
        module = model.get_submodule(name.replace("discriminator_", "discriminator."))
        assert sum(p.numel() for p in module.parameters()) == sum(place.parameters for place in table)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("cifar10", [28, 13, 10, 4, 1, 1, 1], [4, 10, 13, 28, 32, 32, 32]),
        ("celeba", [63, 29, 13, 4, 1, 1], [4, 13, 29, 63, 64, 64]),
        ("imagenet64", [31, 28, 13, 10, 4, 1, 1, 1, 1], [1, 1, 4, 10, 13, 28, 31, 64, 64]),
    ],
)
def test_map_sizes(name, encoder, decoder):
    places = presets.resolve(name).architecture.layouts()
    assert [place.out_size for place in places["encoder"]] == encoder
    assert [place.out_size for place in places["decoder"]] == decoder


def test_multiply_adds_are_half_of_torchs_flops():
    from torch.utils.flop_counter import FlopCounterMode

    preset = presets.resolve("cifar10")
    model = ALI(preset.architecture, resolve("eager", "cpu")).eval()
    places = preset.architecture.layouts()
    for run, table in (
        (lambda: model.encoder(torch.zeros(1, 3, 32, 32)), "encoder"),
        (lambda: model.decoder(torch.zeros(1, 64, 1, 1)), "decoder"),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        assert counter.get_total_flops() == 2 * sum(place.multiply_adds for place in places[table])


def test_maxout_halves_the_channels_into_the_joint_head():
    cifar10 = presets.resolve("cifar10").architecture
    assert cifar10.joint_channels == 512
    assert cifar10.pairs_independent
    assert not presets.resolve("svhn").architecture.pairs_independent


@pytest.mark.parametrize(
    "row",
    [
        {"norm": True, "activation": "maxout"},
        {"norm": True, "activation": "linear"},
        {"bias": "untied"},
        {"activation": "sigmoid"},
        {"dropout_site": "before_maxout"},
    ],
)
def test_a_row_that_no_module_is_of_is_ours_to_mend(row):
    with pytest.raises(AssertionError):
        arch.Row(operation="conv", kernel=1, stride=1, maps=2, **row)


def test_a_table_that_does_not_end_in_one_pixel_is_ours_to_mend():
    with pytest.raises(AssertionError):
        arch.layout((arch.conv(5, 1, 8),), 1, 4)
