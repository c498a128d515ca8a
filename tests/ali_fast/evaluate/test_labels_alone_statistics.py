import io

import numpy as np
import torch
from rich.console import Console

from ali_fast.data.labelled import Labelled
from ali_fast.evaluate import labels_alone
from ali_fast.evaluate.subject import Split


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
