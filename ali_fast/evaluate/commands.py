"""`ali-fast evaluate RUN --task TASK`. Heavy imports sit inside `run`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ali_fast.errors import InputError
from ali_fast.flags import at_least, write_json
from ali_fast.prepared import prepare_if_missing
from ali_fast.seeds import check_seed

FLAGS = {
    "labels": ("svm",),
    "draws": ("svm",),
    "jobs": ("svm",),
    "samples": ("frechet", "condition"),
    "inception_weights": ("frechet",),
    "seed": ("svm", "condition", "frechet", "reconstruction"),
}
"""Which tasks take it: elsewhere it would be passed over in silence."""


@dataclass(frozen=True)
class Evaluate:
    """Measure what a run has learned, and print it beside the paper's numbers. Also kept in RUN/evaluation."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory."""
    task: Literal["svm", "classes", "condition", "frechet", "reconstruction"] = "svm"
    """svm: an L2-SVM on the encoder's features, from few labels. classes: a semi-supervised run's own error, and that
    of the same nets on its labels alone. condition: how often a classifier of real images finds in a conditional run's
    samples what was asked for. frechet: Frechet distance, precision and recall of samples. reconstruction:
    error in pixels and in features."""
    labels: int | None = None
    """svm: how many, equally many of each class; by default 1,000."""
    draws: int | None = None
    """svm: draws of labels to average over; by default 100."""
    samples: int | None = None
    """frechet: images of each set, at most as many as there are test images. condition: samples. By default 10,000."""
    inception_weights: Path | None = None
    """frechet: torch-fidelity's Inception weights, for FID and KID as well."""
    seed: int | None = None
    """Of the draws and the samples; by default 0."""
    jobs: int | None = None
    """svm: processes at once; by default one per core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    data_dir: Path | None = None
    """Where the data is; by default where the run found it. Prepared there if missing."""
    json: Path | None = None
    """Also write the result to this file."""

    def run(self) -> None:
        for name, tasks_with_it in FLAGS.items():
            if getattr(self, name) is not None and self.task not in tasks_with_it:
                raise InputError(f"--{name.replace('_', '-')} is for --task {' and '.join(tasks_with_it)}")
        at_least(1, labels=self.labels, draws=self.draws, jobs=self.jobs)
        at_least(10, samples=self.samples)
        seed = self.seed or 0
        check_seed(seed)
        labels, draws, samples = self.labels or 1000, self.draws or 100, self.samples or 10_000

        from joblib import cpu_count
        from rich.console import Console

        from ali_fast import report
        from ali_fast.evaluate import condition, tasks
        from ali_fast.evaluate.result import check_place, keep
        from ali_fast.evaluate.subject import open_subject

        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        subject = open_subject(self.directory, prepare_if_missing, self.device, self.data_dir)
        check_place(subject.run)
        started = time.perf_counter()
        if self.task == "svm":
            result = tasks.run_svm(
                subject,
                labels=labels,
                draws=draws,
                seed=seed,
                jobs=self.jobs or cpu_count(),
                console=console,
            )
        elif self.task == "classes":
            result = tasks.run_classes(subject, console=console)
        elif self.task == "condition":
            result = condition.run_condition(subject, samples=samples, seed=seed, console=console)
        elif self.task == "frechet":
            result = tasks.run_frechet(
                subject,
                samples=samples,
                seed=seed,
                inception_weights=self.inception_weights,
                console=console,
            )
        else:
            result = tasks.run_reconstruction(subject, seed=self.seed, console=console)
        spent = {"step": subject.step, "seconds": time.perf_counter() - started}
        result = replace(result, numbers=spent | result.numbers)
        print(result.to_text())
        write_json(self.json, asdict(result))
        print(f"kept in {keep(subject.run, result)}, shown in {report.write(subject.run)}")
