"""The tasks of `ali-fast evaluate`: a subject in, a `Result` out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ali_fast.data.balanced import balanced_draws
from ali_fast.errors import InputError
from ali_fast.evaluate import classifier, distances, features, inception, labels_alone, paper, svm
from ali_fast.evaluate.result import Result, percent
from ali_fast.evaluate.subject import Subject
from ali_fast.training_data import known_labels

Images = npt.NDArray[np.uint8]


def run_svm(subject: Subject, *, labels: int, draws: int, seed: int, jobs: int, console: Console) -> Result:
    """An L2-SVM on the encoder's features, and on what they have to beat, in one protocol.

    Raises InputError: no classes, no test split, too few labels of a class, an encoder that is told them.
    """
    dataset, model = subject.config.dataset, subject.inference.model
    needs_encoder(subject, "svm")
    if subject.inference.condition is not None:
        raise InputError(
            "--task svm: a conditional encoder is told what the SVM is to find; evaluate it by --task condition"
        )
    classes = subject.manifest(subject.preset.labelled_split).classes
    if not classes:
        raise InputError(f"--task svm: {dataset} has no class labels; evaluate a run on a data set with classes")
    test, (pool, held_out) = subject.test("svm"), subject.pool_and_held_out()
    chosen = balanced_draws(pool.labels, classes, labels, draws + 1, seed)
    used = np.unique(np.concatenate(chosen))  # only these are represented: the pool can be far larger
    rows = [np.searchsorted(used, draw) for draw in chosen]
    fresh = features.untrained(model, pool.images, subject.config.seed)
    representations: dict[str, features.Represent] = {
        "the run's encoder": features.encoder_features(model),
        "the same encoder, untrained": features.encoder_features(fresh),
        "raw pixels": features.pixels,
        "PCA, 99 % of the variance": features.principal_components(pool.images),
    }
    table: list[tuple[str, ...]] = []
    numbers: list[dict[str, Any]] = []
    for name, represent in representations.items():
        learned = represent(pool.images[used])
        scores = svm.protocol(
            (learned, pool.labels[used]),
            rows,
            (represent(held_out.images), held_out.labels),
            (represent(test.images), test.labels),
            jobs=jobs,
            title=name,
            console=console,
        )
        mean = float(np.mean(scores.test_errors))
        std = float(np.std(scores.test_errors, ddof=1)) if draws > 1 else None
        numbers.append({"features": name, "dimensions": learned.shape[1], "mean": mean, "std": std, **scores._asdict()})
        table.append(
            (name, f"{learned.shape[1]}", f"{scores.c:.2g}", percent(scores.held_out_error), plus_minus(mean, std))
        )
        console.print(f"{name}: test error {plus_minus(mean, std)} %", soft_wrap=True)
    told = subject.config.labels
    known = "" if told is None else f"; the run's encoder has learned from {told:,} labels of its own"
    shared = {"labels": labels, "draws": draws, "seed": seed, "held_out": len(held_out), "test": len(test)}
    return Result(
        task="svm",
        about=f"L2-SVM on {dataset}, run at step {subject.step:,}: {labels:,} labels ({labels // len(classes)} a "
        f"class), mean +- std of {draws} draws; C chosen on {len(held_out):,} held-out training images; error in % of "
        f"{len(test):,} test images{known}",
        columns=("features", "dimensions", "C", "held-out error", "test error"),
        rows=table,
        paper=[(name, "", "", "", value) for name, value in paper.SVHN_1000],
        numbers={"features": numbers, **shared},
    )


def run_classes(subject: Subject, *, console: Console) -> Result:
    """A semi-supervised run's own classification error, beside the same nets trained on its labels alone.

    Raises InputError: a run of another objective, no test split.
    """
    config = subject.config
    if config.labels is None:
        raise InputError(f"--task classes: this is a run of {config.objective}; evaluate one of semi-supervised")
    assert config.learning_rate is not None
    test, (_, held_out) = subject.test("classes"), subject.pool_and_held_out()
    errors = [subject.inference.classification_error(split.images, split.labels) for split in (held_out, test)]
    best, last = labels_alone.train(
        subject.inference.model,
        known_labels(config, subject.preset, subject.inference.device),
        held_out,
        test,
        learning_rate=config.learning_rate,
        betas=(subject.preset.beta1, subject.preset.beta2),
        seed=config.seed,
        console=console,
    )
    table: list[tuple[str, ...]] = [
        (f"K + 1 classes, step {subject.step:,}", *map(percent, errors)),
        *(
            (f"the same E and D, labels alone, {which} step {alone.step:,}", *map(percent, alone[1:]))
            for which, alone in (("last", last), ("best", best))
        ),
    ]
    return Result(
        task="classes",
        about=f"{config.dataset}, {config.labels:,} labels, seed {config.seed}: classification error in % of "
        f"{len(held_out):,} held-out and {len(test):,} test images by D(x, mu(x)); the best step: of "
        f"{labels_alone.LOOKS} looks at the held-out images, which the K + 1 classes' was not chosen by",
        columns=("trained", "held-out error", "test error"),
        rows=table,
        paper=[(name, "", value) for name, value in [*paper.SVHN_CLASSES, *paper.CIFAR10_CLASSES]],
        numbers={
            "labels": config.labels,
            "held_out_error": errors[0],
            "test_error": errors[1],
            "labels_alone": best._asdict(),
            "labels_alone_last": last._asdict(),
        },
    )


def run_frechet(
    subject: Subject, *, samples: int, seed: int, inception_weights: Path | None, console: Console
) -> Result:
    """Samples, reconstructions and other training images against test images.

    Raises InputError: no test split, one of too few images, nothing to train a classifier on, Inception weights that
    cannot be used.
    """
    if inception_weights is not None:
        inception.load_library(inception_weights)  # before the work
    dataset = subject.config.dataset
    test = subject.test("frechet")
    count = min(samples, len(test))
    if count <= distances.NEIGHBOURS:
        raise InputError(
            f"--task frechet: {dataset} has {count} test images, and precision and recall compare each with its "
            f"{distances.NEIGHBOURS} nearest others; evaluate a run on a data set with more"
        )
    train = subject.some(subject.preset.train_split, count, seed)
    y = subject.y(test[:count])
    sets = {"samples": subject.inference.sample(count, seed, y).numpy(), f"training images ({len(train):,})": train}
    if subject.inference.model.players.encoder:
        sets["reconstructions"] = subject.inference.reconstruct(test.images[:count], y).numpy()
    columns = ["against test images"]
    table: list[tuple[str, ...]] = [(name,) for name in sets]
    numbers: list[dict[str, Any]] = [{"set": name} for name in sets]
    about = f"{dataset}, run at step {subject.step:,}: {count:,} images of each set against {count:,} test images"
    accuracy = None
    if classifier.has_labels(subject) or inception_weights is None:
        judge = classifier.of_data_set(subject, test, console)
        real, accuracy = judge.features(test.images[:count]), judge.accuracy
        for i, images in enumerate(sets.values()):
            found = judge.features(images)
            distance, (precision, recall) = distances.frechet(real, found), distances.precision_recall(real, found)
            numbers[i] |= {"frechet": distance, "precision": precision, "recall": recall}
            table[i] += (f"{distance:.3f}", f"{precision:.3f}", f"{recall:.3f}")
        columns += ["Frechet", "precision", "recall"]
        about += f", in the {classifier.FEATURES} features of a classifier with {percent(accuracy)} % test accuracy"
    if inception_weights is not None:
        on_cuda = subject.inference.device.type == "cuda"
        standard = [inception.measure(i, test.images[:count], inception_weights, on_cuda) for i in sets.values()]
        columns += ["FID", "KID x 1000"]
        table = [(*row, f"{s['fid']:.2f}", f"{s['kid'] * 1e3:.2f}") for row, s in zip(table, standard, strict=True)]
        numbers = [{**row, **s} for row, s in zip(numbers, standard, strict=True)]
        about += f"; FID and KID: {inception.describe(inception_weights)}, same images"
    return Result(
        task="frechet",
        about=about,
        columns=tuple(columns),
        rows=table,
        numbers={
            "count": count,
            "seed": seed,
            "classifier_accuracy": accuracy,
            "sets": numbers,
        },
    )


def run_reconstruction(subject: Subject, *, seed: int | None, console: Console) -> Result:
    """How near G(mu(x)) is to x of the test split, in pixels and in a classifier's features.

    seed: of a conditional run's samples, by default 0. Raises InputError: no test split, nothing to train a classifier
    on, a seed where nothing is drawn.
    """
    dataset = subject.config.dataset
    needs_encoder(subject, "reconstruction")
    conditional = subject.inference.condition is not None
    if seed is not None and not conditional:
        raise InputError(f"--seed {seed}: reconstruction draws samples of conditional runs alone; leave it out")
    seed = (seed or 0) if conditional else None
    test = subject.test("reconstruction")
    judge = classifier.of_data_set(subject, test, console)
    real = judge.features(test.images)
    rolled = np.roll(np.arange(len(test)), len(test) // 2)  # for each image another one
    y = subject.y(test)
    sets = {"reconstructions": subject.inference.reconstruct(test.images, y).numpy()}
    if y is not None:  # what telling y alone does: these have not seen the image
        assert seed is not None
        sets["samples of its y"] = subject.inference.sample(len(test), seed, y).numpy()
    if len(test) > 1:
        sets["another test image"] = test.images[rolled]
    table: list[tuple[str, ...]] = []
    numbers: list[dict[str, Any]] = []
    for name, images in sets.items():
        in_pixels = float(
            np.mean([np.square(a / 255 - b / 255).mean() for a, b in zip(images, test.images, strict=True)])
        )
        in_features = float(np.square(judge.features(images) - real).sum(axis=1).mean())
        kept = classifier.share_right(judge.logits(images), test)
        numbers.append({"set": name, "pixels": in_pixels, "features": in_features, "labels_kept": kept})
        table.append((name, f"{in_pixels:.5f}", f"{in_features:.3f}", percent(kept)))
    return Result(
        task="reconstruction",
        about=f"{dataset}, run at step {subject.step:,}: {len(test):,} test images; mean squared difference of pixels "
        f"in [0, 1] and squared distance in the {classifier.FEATURES} features of a classifier with "
        f"{percent(judge.accuracy)} % test accuracy, which finds the true label in so many",
        columns=("against its image", "pixels", "features", "label kept, %"),
        rows=table,
        numbers={
            "count": len(test),
            "seed": seed,
            "classifier_accuracy": judge.accuracy,
            "sets": numbers,
        },
    )


def needs_encoder(subject: Subject, task: str) -> None:
    """Raises InputError for a run without one."""
    if not subject.inference.model.players.encoder:
        raise InputError(f"--task {task}: a GAN has no encoder; evaluate it by --task frechet")


def plus_minus(mean: float, std: float | None) -> str:
    """A single measurement has no spread."""
    return percent(mean) if std is None else f"{percent(mean)} +- {percent(std)}"
