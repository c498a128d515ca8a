"""What a training is made of: what was asked for, by the seed, of the splits that it names."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from rich.console import Console

import ali_fast
from ali_fast import cli, metrics, networks, presets
from ali_fast.build import build_step
from ali_fast.class_loss import class_loss
from ali_fast.config import TrainConfig
from ali_fast.data.loader import BetonLoader, first_samples
from ali_fast.data.order import Order
from ali_fast.data.schema import beton_path
from ali_fast.data.source import Source
from ali_fast.errors import InputError
from ali_fast.evaluate.subject import Subject
from ali_fast.kernels import resolve
from ali_fast.layers import Normalized
from ali_fast.model import ALI
from ali_fast.optim import Adam
from ali_fast.parallel import ALONE
from ali_fast.step import Step
from ali_fast.train import total_steps
from ali_fast.training_data import held_out_images, known_labels, open_data, open_loader

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def built(data):
    def build(**options):
        config = TrainConfig(dataset="digits", data_dir=data, compile=False, batch_size=16, **options).resolved()
        preset = presets.resolve("digits")
        opened = open_data(config, preset, CPU, ALONE)
        source = Source(opened.loader, CPU, resident=True)
        return build_step(config, preset, opened, source, torch.float32, ALONE, None, Console(quiet=True))

    return build


def test_a_step_is_what_was_asked_for(built):
    step = built(learning_rate=3e-3, ema=0.9)
    assert (float(step.adam.learning_rate), step.adam.betas, step.ema) == (3e-3, (0.5, 0.999), 0.9)
    assert not step.model.deterministic
    assert built(encoder="deterministic").model.deterministic


def test_an_overlap_that_cannot_be_is_not_passed_over(built):
    with pytest.raises(InputError, match="--overlap yes: needs a GPU, "):
        built(overlap="yes")


def test_weights_and_noise_are_the_seeds_alone(built):
    one, same, other = (built(seed=seed) for seed in (3, 3, 4))
    weights = [step.model.encoder.products[0].weight for step in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    noises = []
    for seed in (3, 3, 4):
        step = built(seed=seed)  # which seeds the generator
        noises.append(step.noise(4)[0])
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])


def test_the_output_bias_is_the_log_odds_of_500_training_images_mean(built, data):
    """Of the first 500 in epoch 0's order, not of the file's, whose images may be sorted by class."""
    images = first_samples(beton_path(data, "digits", "train"), 1297).images.double() / 255
    mean = images[Order(1297, 16, 5).epoch(0)[:500]].mean(0).clamp(1e-7, 1 - 1e-7).permute(2, 0, 1)
    bias = built(seed=5).model.decoder.activations[-1].bias
    torch.testing.assert_close(torch.sigmoid(bias[0].double()), mean, rtol=1e-4, atol=2e-7)


def test_everything_but_weights_begins_as_the_paper_has_it():
    model = ALI(presets.resolve("svhn").architecture, resolve("eager", "cpu"))
    model.initialize(torch.Generator().manual_seed(0))
    for module in model.modules():
        if isinstance(module, Normalized):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()
    maxout = ALI(networks.DIGITS, resolve("eager", "cpu"))
    maxout.initialize(torch.Generator().manual_seed(0))
    for name, p in [*model.named_parameters(), *maxout.named_parameters()]:
        assert not name.endswith(".bias") or (p == 0).all(), name


def test_epochs_are_whole_passes():
    assert total_steps(TrainConfig(dataset="cifar10").resolved(), 450) == 6475 * 450


def test_a_run_with_ema_is_measured_by_its_average(data, tmp_path):
    flags = ["--data-dir", data, "--run-dir", tmp_path, "--steps", 6, "--batch-size", 16, "--learning-rate", "0.01"]
    arguments = ["train", "--dataset", "digits", "--no-compile", "--device", "cpu", "--ema", "0.9", *map(str, flags)]
    assert cli.main(arguments) == 0
    valid = first_samples(beton_path(data, "digits", "valid"), 100).images
    found = metrics.read_metrics(tmp_path / "metrics.jsonl")[-1]["reconstruction_error"]
    assert found == pytest.approx(ali_fast.load(tmp_path).reconstruction_error(valid))


def test_a_resumed_step_counts_on(make_small):
    """For test_step: the step that is named when the losses are no longer finite."""
    step = Step(make_small("maxout"), learning_rate=1e-3, compile=False)
    batch = torch.zeros(4, 8, 8, 1, dtype=torch.uint8)
    for _ in range(3):
        step(batch)
    resumed = Step(make_small("maxout"), learning_rate=1e-3, compile=False)
    resumed.load_state_dict(copy.deepcopy(step.state_dict()))
    resumed.model.discriminator.xz.products[-1].bias.data.fill_(float("nan"))
    resumed(batch)
    assert resumed.first_bad_step() == 3


def test_a_resumed_adam_has_its_scale(make_small):
    """For test_optim: fp16's loss scale, the steps since it grew, and the skipped ones."""
    one, other = (
        Adam(m, m.working_copy(torch.float16), learning_rate=1e-2, betas=(0.5, 0.999), loss_scale=True, compile=False)
        for m in (make_small("maxout", torch.float32) for _ in range(2))
    )
    one.scale.fill_(8.0)
    one.growth.fill_(7)
    one.skipped.fill_(2)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert (float(other.scale), int(other.growth), int(other.skipped)) == (8.0, 7, 2)


def test_the_error_that_is_followed_is_the_share_of_held_out_images_got_wrong(data, tmp_path):
    flags = ["--data-dir", data, "--run-dir", tmp_path, "--steps", 2, "--batch-size", 16, "--labels", 40]
    arguments = ["train", "--dataset", "digits", "--no-compile", "--device", "cpu", "--objective", "semi-supervised"]
    assert cli.main([*arguments, *map(str, flags)]) == 0
    held_out = first_samples(beton_path(data, "digits", "valid"), 300)
    wrong = ali_fast.load(tmp_path).classify(held_out.images) != held_out.labels
    line = metrics.read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert line["held_out_error"] == pytest.approx(wrong.double().mean())


@pytest.mark.parametrize("won", [200.0, -200.0])
def test_the_generators_gradient_survives_a_won_game_of_classes(won):
    """For test_semi_supervised: by one backward it is the factor times D's, which must not have vanished."""
    loss = class_loss(torch.full((12 + 4, 3), won), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(loss.factor[:, None] * loss.seed_d, loss.seed_g, rtol=1e-5, atol=1e-7)


def test_the_order_of_images_is_the_seeds(data):
    for seed in (0, 7):
        config = TrainConfig(dataset="digits", data_dir=data, seed=seed, batch_size=16).resolved()
        loader = open_loader(config, presets.resolve("digits"), ALONE)
        assert np.array_equal(loader.order.epoch(1), Order(1297, 16, seed).epoch(1))


def test_svhns_held_out_images_are_no_labelled_ones(data):
    """As if the digits were laid out as SVHN: labels come from `train`, whose last images are held out."""
    config = TrainConfig(dataset="digits", data_dir=data, objective="semi-supervised", labels=100).resolved()
    preset = dataclasses.replace(presets.resolve("digits"), train_split="valid", valid_split="train", held_out=1000)
    train = BetonLoader(beton_path(data, "digits", "train"), batch_size=1).read_all()
    pool, held_out = Subject(None, config, preset, None, 0).pool_and_held_out()
    assert np.array_equal(pool.images, train.images[:297])
    assert np.array_equal(held_out.images, train.images[297:])
    assert np.array_equal(held_out.labels, train.labels[297:])
    labelled, followed = known_labels(config, preset, CPU), held_out_images(config, preset)
    known = {image.tobytes() for image in train.images[:297].numpy()}
    assert all(image.tobytes() in known for image in labelled.images.numpy())
    assert np.array_equal(followed.images, held_out.images)
    assert np.array_equal(followed.labels, held_out.labels)
