import io
from types import SimpleNamespace

import numpy as np
import torch
from rich.console import Console

from ali_fast import presets
from ali_fast.config import TrainConfig
from ali_fast.evaluate import features, svm, tasks
from ali_fast.evaluate.subject import Split


def test_the_svms_untrained_encoder_is_by_the_seed_of_the_run_whatever_that_of_the_draws(make_small, monkeypatch):
    """Then it is one encoder for all seeds of draws."""
    model = make_small("norm", torch.float32).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    split = Split(images, np.arange(20) % 2, np.empty((20, 0), np.uint8))
    subject = SimpleNamespace(
        config=TrainConfig(dataset="digits", seed=5),
        preset=presets.resolve("digits"),
        inference=SimpleNamespace(model=model, condition=None),
        step=0,
        manifest=lambda split: SimpleNamespace(classes=("a", "b")),
        test=lambda task: split,
        pool_and_held_out=lambda: (split, split),
    )
    measured = {}

    def protocol(pool, draws, held_out, test, *, title, **_):
        measured[title] = test[0]
        return svm.Scores(1.0, 0.0, [0.0, 0.0])

    monkeypatch.setattr(svm, "protocol", protocol)
    tasks.run_svm(subject, labels=4, draws=2, seed=6, jobs=1, console=Console(file=io.StringIO()))
    expected = features.encoder_features(features.untrained(model, images, 5))(images)
    np.testing.assert_array_equal(measured["the same encoder, untrained"], expected)
