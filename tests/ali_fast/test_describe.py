import json

import pytest

from ali_fast import describe, presets

PARAMETERS = {  # E, G, D of the published networks
    "cifar10": (3_118_496, 981_152, 2_611_009),
    "svhn": (3_315_488, 1_767_584, 5_283_073),
    "celeba": (6_794_880, 11_811_392, 15_189_057),
    "imagenet64": (7_812_352, 3_164_224, 32_985_793),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_papers_networks(name):
    description = describe.describe(presets.resolve(name))
    counts = tuple(description[network]["parameters"] for network in ("encoder", "decoder", "discriminator"))
    assert counts == PARAMETERS[name]
    assert description["parameters"] == sum(counts)


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda p: p.name)
def test_totals_are_the_layers(preset):
    description = json.loads(json.dumps(describe.describe(preset)))
    for network in ("encoder", "decoder", "discriminator"):
        layers = description[network]["layers"]
        for total in ("parameters", "multiply_adds"):
            assert description[network][total] == sum(layer[total] for layer in layers)
    text = describe.to_text(description)
    for network in ("encoder", "decoder", "discriminator"):
        assert f"{network}: {description[network]['parameters']:,} parameters" in text


def test_conditional_layers_take_256_channels_more():
    """Of E's last layer, G's first and D(x, z)'s first; the embedding itself depends on the data set."""
    plain, told = (describe.describe(presets.resolve("celeba", objective=name)) for name in ("ali", "conditional"))
    more = {network: told[network]["parameters"] - plain[network]["parameters"] for network in describe.NETWORKS}
    assert more == {"encoder": 256 * 512, "decoder": 256 * 512 * 4 * 4, "discriminator": 256 * 2048}
    assert told["batch_size"] == 128
    assert describe.to_text(told).count("convolution, with y") == 3
    assert "y: the condition, embedded linearly in 256 channels" in describe.to_text(told)
    assert "with y" not in describe.to_text(plain)


def test_a_layer_as_the_appendix_has_it():
    layer = describe.describe(presets.resolve("cifar10"))["discriminator"]["layers"][1]
    assert layer["operation"] == "convolution"
    assert (layer["kernel"], layer["strides"], layer["maps"]) == ([4, 4], [2, 2], 64)
    assert (layer["batch_norm"], layer["dropout"], layer["nonlinearity"]) == (False, 0.5, "maxout")
    assert layer["output"] == [32, 13, 13]
    assert layer["multiply_adds"] == 16 * 64 * 4 * 4 * 13 * 13
