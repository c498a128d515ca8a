"""What a semi-supervised run has to beat: its encoder and discriminator trained on its labels alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from ali_fast.data.labelled import Labelled
from ali_fast.evaluate.progress import follow
from ali_fast.evaluate.subject import Split
from ali_fast.inference import Inference
from ali_fast.layers import Statistics, batch_norms, move_running
from ali_fast.model import ALI
from ali_fast.objective import encode
from ali_fast.pixels import to_x

STEPS, LOOKS = 2000, 20  # updates, and how often the held-out images are looked at
BATCH = 50  # labelled images an update, as in a run with batches of 100


class Alone(NamedTuple):
    """Errors are shares."""

    step: int
    held_out_error: float
    test_error: float


def train(
    like: ALI,
    labelled: Labelled,
    held_out: Split,
    test: Split,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    seed: int,
    console: Console,
) -> tuple[Alone, Alone]:
    """Cross-entropy of K classes of D(x, z_hat) on `labelled`, dropout and noise as in the run; E learns with D.

    At the look whose held-out error was the least, and at the last: chosen by nobody, as a run's last checkpoint.
    """
    device = labelled.images.device
    model = like.untrained()
    generator = torch.Generator().manual_seed(seed)
    model.initialize(generator)
    model.to(device).train()
    height, width, channels = labelled.images.shape[1:]
    judge = Inference(model, (height, width, channels))
    adam = torch.optim.Adam(
        [*model.encoder.parameters(), *model.discriminator.parameters()], lr=learning_rate, betas=betas
    )
    best = last = Alone(0, 1.0, 1.0)
    weights: dict[str, Tensor] = {}
    for i in follow(range(1, STEPS + 1), STEPS, "labels alone", console):
        rows = torch.randint(len(labelled.labels), (min(BATCH, len(labelled.labels)),), generator=generator).to(device)
        x = to_x(labelled.images[rows], model.architecture.image_size)
        loss = _loss(model, x, labelled.labels[rows], generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if i % (STEPS // LOOKS) == 0:
            error = judge.classification_error(held_out.images, held_out.labels)
            last = Alone(i, error, 1.0)
            if error < best.held_out_error:
                best = last
                weights = {name: t.clone() for name, t in model.state_dict().items()}
    last = last._replace(test_error=judge.classification_error(test.images, test.labels))
    if best.step in (0, last.step):
        return last, last
    model.load_state_dict(weights)
    return best._replace(test_error=judge.classification_error(test.images, test.labels)), last


def _loss(model: ALI, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    seeds = torch.randint(2**63 - 1, (model.sites,), generator=generator).to(x.device)
    d = model.discriminator
    statistics: Statistics = []
    prior = torch.zeros(len(x), model.architecture.z_dim, 1, 1, dtype=x.dtype, device=x.device)
    _, z_joint = encode(model, x, prior, seeds, statistics)
    loss = F.cross_entropy(d.head(d.features(x, seeds, statistics), z_joint[: len(x)], seeds), y)
    move_running(batch_norms(model.encoder, d), statistics)
    return loss
