import dataclasses
import io

import numpy as np
import torch
from rich.console import Console

from ali_fast.data.labelled import Labelled
from ali_fast.evaluate import labels_alone
from ali_fast.evaluate.subject import Split


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
    alone = labels_alone.train(like, labelled, held_out, test, seed=0, **options)
    assert alone.step in (15, 30)
    assert alone.held_out_error <= 0.2
    assert alone.test_error <= 0.2
    assert all(torch.equal(t, before[name]) for name, t in like.state_dict().items())
