import dataclasses
import io

import numpy as np
import torch
from rich.console import Console

from ali_fast import objective
from ali_fast.data.labelled import Labelled
from ali_fast.evaluate import labels_alone
from ali_fast.evaluate.labels_alone import Alone
from ali_fast.evaluate.subject import Split
from ali_fast.inference import Inference


def bars(count, seed, channels):
    """Three classes that a bright row tells apart."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 8, 8, channels), dtype=np.uint8)
    labels = np.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        image[3 * label] += np.uint8(180)
    return Split(images, labels, np.empty((count, 0), np.uint8))


def test_the_same_nets_learn_from_labels_alone(make_small, kind, monkeypatch):
    monkeypatch.setattr(labels_alone, "STEPS", 30)
    monkeypatch.setattr(labels_alone, "LOOKS", 2)
    like = make_small(kind, torch.float32, objective="semi-supervised", classes=3)
    before = {name: t.clone() for name, t in like.state_dict().items()}
    known = bars(30, 0, like.architecture.image_channels)
    labelled = Labelled(torch.from_numpy(known.images), torch.from_numpy(known.labels))
    held_out, test = (bars(60, seed, like.architecture.image_channels) for seed in (1, 2))
    options = {"learning_rate": 1e-2, "betas": (0.5, 0.999), "console": Console(file=io.StringIO())}
    like.architecture = dataclasses.replace(like.architecture, init_std=0.2)
    best, last = labels_alone.train(like, labelled, held_out, test, seed=0, **options)
    assert best.step in (15, 30)
    assert last.step == 30
    assert best.held_out_error <= min(0.2, last.held_out_error)
    assert best.test_error <= 0.2
    assert all(torch.equal(t, before[name]) for name, t in like.state_dict().items())


def test_held_out_images_choose_the_weights_that_the_test_images_then_measure(make_small, monkeypatch):
    monkeypatch.setattr(labels_alone, "STEPS", 6)
    monkeypatch.setattr(labels_alone, "LOOKS", 3)
    model = make_small("maxout", torch.float32, objective="semi-supervised", classes=3)
    images = torch.randint(256, (6, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labelled = Labelled(images, torch.arange(6) % 3)
    held_out, test = (Split(np.zeros((n, 8, 8, 1), np.uint8), np.zeros(n, int), np.empty((n, 0))) for n in (5, 4))
    seen, dropouts, errors = [], [], iter([0.5, 0.2, 0.4, 0.6, 0.3])
    reparametrize = objective.reparametrize

    def error(judge, images, labels):
        seen.append((len(images), judge.model.encoder.products[0].weight.detach().clone()))
        return next(errors)

    def noted(*arguments, **options):
        dropouts.append(options.get("dropout", 0.0))
        return reparametrize(*arguments, **options)

    monkeypatch.setattr(Inference, "classification_error", error)
    monkeypatch.setattr(objective, "reparametrize", noted)
    options = {"learning_rate": 1e-2, "betas": (0.5, 0.999), "seed": 0, "console": Console(file=io.StringIO())}
    found = labels_alone.train(model, labelled, held_out, test, **options)
    assert found == (Alone(4, 0.2, 0.3), Alone(6, 0.4, 0.6))
    assert [count for count, _ in seen] == [5, 5, 5, 4, 4]
    assert torch.equal(seen[3][1], seen[2][1])
    assert torch.equal(seen[4][1], seen[1][1])
    assert not torch.equal(seen[3][1], seen[4][1])
    assert set(dropouts) == {model.z_dropout} != {0.0}  # D(x, z)'s, as in the run


def test_the_encoder_normalizes_by_the_images_that_it_learned_from(make_small, monkeypatch):
    """Not as an untrained one does, by a mean of 0 and a variance of 1."""
    monkeypatch.setattr(labels_alone, "STEPS", 3)
    monkeypatch.setattr(labels_alone, "LOOKS", 1)
    like = make_small("norm", torch.float32, objective="semi-supervised", classes=3)
    trained = like.untrained()
    monkeypatch.setattr(like, "untrained", lambda: trained)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    split = Split(images, np.arange(6) % 3, np.empty((6, 0), np.uint8))
    options = {"learning_rate": 1e-2, "betas": (0.5, 0.999), "seed": 0, "console": Console(file=io.StringIO())}
    labels_alone.train(like, Labelled(torch.from_numpy(images), torch.arange(6) % 3), split, split, **options)
    means = [t for name, t in trained.encoder.state_dict().items() if name.endswith("running_mean")]
    assert means
    assert all((mean != 0).all() for mean in means)
