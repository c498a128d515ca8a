"""Whether a conditional run does as it is told: a classifier of real images looks at what was asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from ali_fast.errors import InputError
from ali_fast.evaluate import classifier
from ali_fast.evaluate.result import Result, percent
from ali_fast.evaluate.subject import Subject

Asked = npt.NDArray[np.integer]


class Agreement(NamedTuple):
    """Shares of images in which a classifier finds what was asked for."""

    all: float
    """Classes: share of images. Attributes: share of single values, present or absent."""
    each: list[float]
    """Per class or attribute: share of the images that it was asked for in; NaN if it never was."""


def agreement(logits: npt.NDArray[np.floating], asked: Asked) -> Agreement:
    """logits [N, K]; asked [N], classes, or [N, K], attributes (found where the logit is above 0)."""
    if asked.ndim == 1:
        right = logits.argmax(axis=1) == asked
        wanted = asked[:, None] == np.arange(logits.shape[1])
        found = right[:, None] & wanted
    else:
        wanted = asked > 0
        found = (logits > 0) & wanted
        right = (logits > 0) == wanted
    counts = wanted.sum(axis=0)
    each = np.where(counts > 0, found.sum(axis=0) / np.maximum(counts, 1), np.nan)
    return Agreement(float(right.mean()), each.tolist())


def run_condition(subject: Subject, *, samples: int, seed: int, console: Console) -> Result:
    """Samples of a conditional run against what was asked of them, by a classifier trained on real images.

    Raises InputError: a run that is not conditional, no test split.
    """
    config, condition = subject.config, subject.inference.condition
    if condition is None:
        raise InputError(f"--task condition: this is a run of {config.objective}; evaluate one of conditional")
    test = subject.test("condition")
    judge = classifier.of_data_set(subject, test, console)
    asked = condition.in_turn(samples, torch.from_numpy(test.attributes)).numpy()
    logits = judge.logits(subject.inference.sample(samples, seed, asked).numpy())
    others = np.random.default_rng(seed).permutation(samples)
    own = subject.y(test)
    assert own is not None
    sets = {
        "samples": agreement(logits, asked),
        "the same, against what others were asked": agreement(logits, asked[others]),
        f"test images ({len(test):,}), against their own": agreement(judge.logits(test.images), own),
    }
    columns = ("", *sets)
    table: list[tuple[str, ...]] = [("all", *(percent(found.all) for found in sets.values()))]
    for i, name in enumerate(condition.names):
        table.append((name, *(percent(found.each[i]) for found in sets.values())))
    numbers: list[dict[str, Any]] = [
        {"set": name, "all": found.all, "each": [None if np.isnan(share) else share for share in found.each]}
        for name, found in sets.items()
    ]
    return Result(
        task="condition",
        about=f"{config.dataset}, run at step {subject.step:,}: {samples:,} samples, "
        + ("every class asked for in turn" if condition.kind == "classes" else "attributes of test images asked for")
        + f"; share, in %, in which a classifier of real images with {percent(judge.accuracy)} % test accuracy finds "
        f"what was asked",
        columns=columns,
        rows=table,
        numbers={
            "samples": samples,
            "seed": seed,
            "classifier_accuracy": judge.accuracy,
            "names": list(condition.names),
            "sets": numbers,
        },
    )
