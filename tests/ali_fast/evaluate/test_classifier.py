import io

import numpy as np
import pytest
import torch
from rich.console import Console

from ali_fast.evaluate import classifier
from ali_fast.evaluate.classifier import Classifier, Network
from ali_fast.evaluate.subject import Split

QUIET = Console(file=io.StringIO())


def bars(count, seed, attributes=False, size=9):
    """Noise with a bright row (class: which third); or a bright row and a bright column, each there or not."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (count, size, size, 1), dtype=np.uint8)
    if attributes:
        marks = rng.integers(0, 2, (count, 2), dtype=np.uint8)
        for image, (row, column) in zip(images, marks, strict=True):
            image[2] += row * np.uint8(120)
            image[:, 5] += column * np.uint8(120)
        return Split(images, np.empty(0, np.int64), marks)
    labels = rng.integers(0, 3, count)
    for image, label in zip(images, labels, strict=True):
        image[3 * label + 1] += np.uint8(120)
    return Split(images, labels, np.empty((count, 0), np.uint8))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(classifier, "LEAST_STEPS", 60)


@pytest.mark.parametrize("attributes", [False, True])
def test_it_learns_and_features_lead_to_its_logits(attributes):
    network = Network(1, 9, 2 if attributes else 3)
    classifier.train(network, bars(300, 0, attributes), QUIET)
    test = bars(100, 1, attributes)
    judge = Classifier(network, 1.0)
    features, logits = judge.features(test.images), judge.logits(test.images)
    assert classifier.share_right(logits, test) > 0.95
    assert features.shape == (100, classifier.FEATURES)
    weight, bias = (p.detach().numpy() for p in network.last.parameters())
    np.testing.assert_allclose(features @ weight.T + bias, logits, rtol=1e-4, atol=1e-4)


def test_training_is_by_its_seed_and_leaves_the_generator_alone(monkeypatch):
    monkeypatch.setattr(classifier, "LEAST_STEPS", 8)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    nets = []
    for _ in range(2):
        torch.manual_seed(7)
        network = classifier.initialized(1, 9, 3)
        classifier.train(network, bars(100, 0), QUIET)
        assert torch.equal(torch.rand(3), expected)
        nets.append(network.state_dict())
    for a, b in zip(*(net.values() for net in nets), strict=True):
        torch.testing.assert_close(a, b)


def test_its_rate_goes_linearly_to_0(monkeypatch):
    def step(adam):
        rates.append(adam.param_groups[0]["lr"])
        take(adam)

    rates, take = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(classifier, "LEAST_STEPS", 8)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    classifier.train(classifier.initialized(1, 9, 3), bars(100, 0), QUIET)
    np.testing.assert_allclose(rates, classifier.LEARNING_RATE * (1 - np.arange(8) / 8))


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (64, 3)])
def test_any_data_sets_images_fit(size, channels):
    network = Network(channels, size, 10).eval()
    assert network.features(torch.zeros(2, channels, size, size)).shape == (2, classifier.FEATURES)


def test_kept_only_for_the_same_training_images(tmp_path):
    network = Network(1, 9, 3)
    path = tmp_path / "classifier.pt"
    classifier._save(Classifier(network, 0.5), path, "a" * 64)
    fresh = Network(1, 9, 3)
    kept = classifier._restore(fresh, path, "a" * 64)
    assert (kept.network, kept.accuracy) == (fresh, 0.5)
    assert torch.equal(fresh.last.weight, network.last.weight)
    assert classifier._restore(fresh, path, "b" * 64) is None
    assert classifier._restore(Network(1, 9, 4), path, "a" * 64) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert classifier._restore(fresh, path, "a" * 64) is None
    assert [p.name for p in tmp_path.iterdir()] == ["classifier.pt"]
