"""A small classifier trained on the data set itself: features for distances that need no download.

Kept as DATA_DIR/NAME/classifier.pt beside the beton and trained again when the training split is another one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from ali_fast import checkpoint
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from ali_fast.evaluate.progress import follow
from ali_fast.evaluate.subject import Split, Subject
from ali_fast.files import whole

FORMAT = 1
BATCH, LEARNING_RATE = 100, 2e-3
EPOCHS, LEAST_STEPS, MOST_STEPS = 6, 600, 6000
CHUNK = 500  # images at a time when it is used
FEATURES = 128
WIDTHS = (32, 64, FEATURES)


class Network(nn.Module):
    """x [N, C, H, W] in [0, 1] -> features [N, 128] -> logits [N, K]: 3x3 convolutions of stride 2 down to 4 pixels."""

    def __init__(self, channels: int, size: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        depth = 0
        while size > 4 or depth < len(WIDTHS):
            width, stride = WIDTHS[min(depth, len(WIDTHS) - 1)], 2 if size > 4 else 1
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, size, depth = width, -(-size // stride), depth + 1
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(FEATURES, outputs)

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


@dataclass(frozen=True)
class Classifier:
    """A trained network and its accuracy on the test split (of attributes: the mean over them)."""

    network: Network
    accuracy: float

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [N, H, W, C] -> [N, 128]."""
        return _apply(self.network, self.network.features, images)

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [N, H, W, C] -> [N, K]; K classes, or attributes (above 0: it has it)."""
        return _apply(self.network, self.network, images)


@torch.no_grad()
def _apply(
    network: Network, function: Callable[[Tensor], Tensor], images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """`function`, which is `network` or a part of it, of all images."""
    device = network.last.weight.device
    chunks = torch.from_numpy(images).split(CHUNK)
    return torch.cat([function(_to_x(chunk.to(device))).cpu() for chunk in chunks]).numpy()


def share_right(logits: npt.NDArray[np.floating], data: Split) -> float:
    """Share of labels, or of single attributes, that `logits` [N, K] get right."""
    if data.labels.size:
        return float((logits.argmax(axis=1) == data.labels).mean())
    return float(((logits > 0) == data.attributes).mean())


def has_labels(subject: Subject) -> bool:
    """Whether the run's data set has something to train a classifier on."""
    manifest = subject.manifest(subject.preset.labelled_split)
    return bool(manifest.classes or manifest.attributes)


def of_data_set(subject: Subject, test: Split, console: Console) -> Classifier:
    """The cached classifier of the run's data set, or a new one.

    Raises InputError for a data set with neither classes nor attributes.
    """
    config, split = subject.config, subject.preset.labelled_split
    manifest = subject.manifest(split)
    if not has_labels(subject):
        raise InputError(
            f"{config.dataset} has neither classes nor attributes, so no classifier can be trained on it; distances in "
            f"Inception's features need none: --task frechet --inception-weights PATH"
        )
    path = beton_path(config.data_dir, config.dataset, split).with_name("classifier.pt")
    device, outputs = subject.inference.device, len(manifest.classes) or len(manifest.attributes)
    network = initialized(manifest.shape[2], max(manifest.shape[:2]), outputs)
    if (kept := _restore(copy.deepcopy(network), path, manifest.sha256)) is not None:
        return Classifier(kept.network.to(device).eval(), kept.accuracy)
    console.print(f"training a classifier of {config.dataset} (kept as {path})", soft_wrap=True)
    train(network.to(device), subject.read(split), console)
    made = Classifier(network, share_right(_apply(network, network, test.images), test))
    try:
        _save(made, path, manifest.sha256)
    except OSError as error:
        console.print(f"warning: the classifier cannot be kept ({error.strerror}): {path}", soft_wrap=True)
    return made


def initialized(channels: int, size: int, outputs: int, seed: int = 0) -> Network:
    """By its seed, the same for every device."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(channels, size, outputs)


def train(network: Network, data: Split, console: Console, seed: int = 0) -> None:
    """Adam on shuffled batches, its rate going linearly to 0; cross-entropy of the classes, or of each attribute."""
    device = network.last.weight.device
    images, targets = (torch.from_numpy(a).to(device) for a in (data.images, _targets(data)))
    batch = min(BATCH, len(images))
    steps = min(MOST_STEPS, max(LEAST_STEPS, EPOCHS * len(images) // batch))
    adam = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    order = torch.empty(0, dtype=torch.int64)
    for _ in follow(range(steps), steps, "classifier", console):
        if len(order) < batch:
            order = torch.randperm(len(images), generator=generator)
        rows, order = order[:batch].to(device), order[batch:]
        logits = network(_to_x(images[rows]))
        adam.zero_grad()
        _loss(logits, targets[rows]).backward()
        adam.step()
        decay.step()
    network.eval()


def _to_x(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def _targets(data: Split) -> np.ndarray:
    return data.labels if data.labels.size else data.attributes.astype(np.float32)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype == torch.int64:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def _restore(network: Network, path: Path, train_sha256: str) -> Classifier | None:
    """The kept classifier, in `network`; None where there is none to use: what can be made again needs no error.

    Of `network` nothing is to be used then: some of its tensors may have been loaded.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT or state["train_sha256"] != train_sha256:
            return None
        network.load_state_dict(state["network"])
        return Classifier(network, float(state["accuracy"]))
    except Exception:  # torch raises many types on damaged bytes, none of them documented
        return None


def _save(made: Classifier, path: Path, train_sha256: str) -> None:
    weights = made.network.state_dict()
    state = {"format": FORMAT, "train_sha256": train_sha256, "network": weights, "accuracy": made.accuracy}
    with whole(path) as part, part.open("wb") as file:
        checkpoint.write(state, file)
