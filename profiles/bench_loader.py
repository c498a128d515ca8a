"""Ways to bring a prepared split to the device: images per second, and the time to the first batch.

    python -m profiles.bench_loader [--dataset NAME] [--data-dir DIR] [--batch-size N] [--json PATH] [--chart PATH]

Without --dataset, images of noise are written to a temporary .beton first. `stream` is FFCV as `train` uses it,
`resident` the split on the device as uint8, `torch DataLoader` the usual one over the images in memory, with workers.
A prepared split can be read without FFCV: then `stream` is left out.
Nothing but the batches is asked for: no step runs. Times to the first batch include opening, filling and compiling.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ali_fast import decide, presets
from ali_fast.data.device import to_device
from ali_fast.data.loader import BetonLoader
from ali_fast.data.resident import ResidentSet
from ali_fast.data.schema import beton_path
from profiles import clock, report
from profiles.arguments import Parser, positive

Epoch = Callable[[int], Iterator[Tensor]]


def streamed(path: Path, batch_size: int, device: torch.device) -> Epoch:
    loader = BetonLoader(path, batch_size=batch_size)

    def epoch(number: int) -> Iterator[Tensor]:
        with contextlib.closing(loader.epoch(number)) as batches:
            for batch in to_device(batches, device):
                yield batch.images

    return epoch


def resident(path: Path, batch_size: int, device: torch.device) -> Epoch:
    held = ResidentSet(BetonLoader(path, batch_size=batch_size), device)
    return lambda number: (batch.images for batch in held.epoch(number))


def usual(path: Path, batch_size: int, device: torch.device) -> Epoch:
    images = BetonLoader(path, batch_size=batch_size).read_all().images
    loader = DataLoader(
        cast(Dataset[Tensor], images),  # it has a length and is indexed: all that a map-style one needs
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=min(8, cpu_count()),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    return lambda number: (batch.to(device, non_blocking=True) for batch in loader)


STREAM = "stream (FFCV)"
WAYS: dict[str, Callable[[Path, int, torch.device], Epoch]] = {
    "torch DataLoader": usual,
    STREAM: streamed,
    "resident": resident,
}


def possible_ways() -> list[str]:
    return [way for way in WAYS if way != STREAM or importlib.util.find_spec("ffcv") is not None]


def first_batch(way: str, path: Path, batch_size: int, device: torch.device) -> tuple[Epoch, float]:
    """The opened source, and the seconds to its first batch."""
    start = time.perf_counter()
    epoch = WAYS[way](path, batch_size, device)
    next(epoch(0))
    clock.synchronize(device)
    return epoch, time.perf_counter() - start


def images_per_s(epoch: Epoch, number: int, device: torch.device) -> float:
    """Over a whole epoch but its first batch: what starts with it is the other number."""
    batches = epoch(number)
    next(batches)
    clock.synchronize(device)
    start, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch)
    clock.synchronize(device)
    return images / (time.perf_counter() - start)


def bench(path: Path, batch_size: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Epochs of every way in turn."""
    opened = {way: first_batch(way, path, batch_size, device) for way in possible_ways()}
    rates: dict[str, list[float]] = {way: [] for way in opened}
    for number in range(rounds):
        for way, (epoch, _) in opened.items():
            rates[way].append(images_per_s(epoch, number, device))
    rows = []
    for way, (_, first) in opened.items():
        rate = clock.spread(rates[way])
        rows.append({"name": way, "images_per_s": rate.median, "spread_images_per_s": rate.iqr, "first_batch_s": first})
    return rows


def noise(path: Path, count: int, shape: tuple[int, int, int]) -> None:
    """A split of noise, prepared as every other."""
    from data_prep.split import Split
    from data_prep.writer import write_splits

    write_splits({path: Split(count, shape, partial(_sample, shape))})


def _sample(shape: tuple[int, int, int], i: int) -> Any:
    from data_prep.split import Sample

    return Sample(np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8))


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("bench_loader", __doc__)
    parser.add_argument("--dataset", help="prepared before; default: noise")
    parser.add_data_dir()
    parser.add_argument("--batch-size", type=positive, default=100, metavar="IMAGES")
    parser.add_argument("--images", type=positive, default=50_000, help="of noise, 32x32x3 (default 50000)")
    parser.add_device()
    parser.add_argument("--rounds", type=positive, default=5, help="epochs of each (default 5)")
    parser.add_outputs()
    args = parser.parse_args(arguments)
    with parser.checked():
        device = decide.device(args.device).device
        head = report.header(device)
        report.print_header(head)
        with tempfile.TemporaryDirectory() as folder:
            if args.dataset:
                preset = presets.resolve(args.dataset)
                path = beton_path(args.data_dir, args.dataset, preset.train_split)
            else:
                path = beton_path(Path(folder), "noise", "train")
                noise(path, args.images, (32, 32, 3))
            rows = bench(path, args.batch_size, device, args.rounds)
    print("| way | images/s | spread | first batch, s |\n| --- | ---: | ---: | ---: |")
    for r in rows:
        print(f"| {r['name']} | {r['images_per_s']:.0f} | {r['spread_images_per_s']:.0f} | {r['first_batch_s']:.2f} |")
    if args.json:
        report.write_json(args.json, head, rows, batch_size=args.batch_size)
    if args.chart:
        report.bar_chart(
            args.chart,
            f"batches of {args.batch_size} on {head['device']}",
            [r["name"] for r in rows],
            [r["images_per_s"] for r in rows],
            [r["spread_images_per_s"] for r in rows],
            "images per second",
        )


if __name__ == "__main__":
    main()
