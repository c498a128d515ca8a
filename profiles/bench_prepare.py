"""How fast ImageNet becomes 64x64: images per second and core, memory, and what decoding at a smaller scale changes.

    python -m profiles.bench_prepare [--images N] [--workers N ...] [--rounds N] [--json PATH]

The images are made here, like ILSVRC-2012's: 500x375, its most frequent size; quality 96 without chroma subsampling, as
most of it (M. Ehrlich, "Compression in the ImageNet Dataset"); not fewer bytes than its mean, 114.7 kB, which is the
published size of the training tar (data_prep/imagenet64.py) without tar's own headers and padding. Amplitudes fall as
frequency^-1.2, the mean of photographs (Tolhurst et al., 1992, Amplitude spectra of natural images). In a tar, they go
through what `ali-fast prepare imagenet64` does, from there to the .beton.
The rate of a core is by processor time, all processes' together: on a busy machine the clock measures the others.
`decoding alone` is Pillow's JPEG decoder at the scale that is used: the rest of the time is what could still be saved.

The aim, 500 images a second and core, is not reached on a Xeon at 2.5 GHz, where decoding alone is slower than that.
What was tried: profiles/results/2026-11-22-cpu/prepare-imagenet64.md.
"""

from __future__ import annotations

import io
import multiprocessing
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ali_fast.data.schema import beton_path
from ali_fast.images import FEED_BYTES
from data_prep.imagenet64 import SIZE, Reader
from data_prep.located import Packed, tar_members
from data_prep.split import Split
from data_prep.writer import write_splits
from profiles import clock, report
from profiles.arguments import Parser, positive

DISTINCT = 64  # pictures; a tar of many images repeats them
SHAPE = (375, 500)
QUALITY = 96
SLOPE = 1.2
CONTRAST, COLOUR = 24, 3.3  # gray levels, of all channels and of each: make up the published mean size


def photograph(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Colour noise with the amplitudes of photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf

    def plane(scale: float) -> np.ndarray:
        noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**SLOPE, (height, width))
        return scale * noise / noise.std()

    gray = 128 + plane(CONTRAST)
    pixels = np.stack([gray + plane(COLOUR) for _ in range(3)], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_tar(path: Path, count: int) -> float:
    """`count` JPEGs, in turn wide and tall; returns their mean size in bytes."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(min(count, DISTINCT)):
        out = io.BytesIO()
        photograph(rng, *SHAPE[:: 1 if number % 2 else -1]).save(out, "JPEG", quality=QUALITY, subsampling="4:4:4")
        files.append(out.getvalue())
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"n00000000_{number}.JPEG")
            info.size = len(files[number % len(files)])
            tar.addfile(info, io.BytesIO(files[number % len(files)]))
    return statistics.mean(map(len, files))


def split_of(tar: Path, count: int) -> Split:
    images = Packed.of((tar,), ((0, member) for member in tar_members(tar)[:count]))
    return Split(count, (SIZE, SIZE, 3), Reader(images, np.zeros(count, np.int16)), classes=("n00000000",))


def rates(split: Split, path: Path, workers: int) -> tuple[float, float]:
    """Images per second by the clock, and of processor time."""
    start, busy = time.perf_counter(), processor_s()
    write_splits({path: split}, workers=workers)
    return split.count / (time.perf_counter() - start), split.count / (processor_s() - busy)


def processor_s() -> float:
    """Of this process and of the children it has waited for."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def distinct_files(split: Split) -> list[bytes]:
    """The JPEGs behind it, each once."""
    assert isinstance(split.read, Reader)
    return [split.read.images.read(index)[0] for index in range(min(split.count, DISTINCT))]


def decoding_rate(split: Split) -> float:
    """Images per second of processor time of the decoder alone, fed as it is in use."""
    files = distinct_files(split)
    start = time.process_time()
    for number in range(split.count):
        image = Image.open(io.BytesIO(files[number % len(files)]))
        image.decodermaxblock = FEED_BYTES
        image.draft(None, (2 * SIZE, 2 * SIZE))
        image.load()
    return split.count / (time.process_time() - start)


def peak_bytes(split: Split, path: Path, workers: int) -> int:
    """Of the largest of the processes that convert it, in a process of its own."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def convert() -> None:
        write_splits({path: split}, workers=workers)
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        send.send(max(resource.getrusage(kind).ru_maxrss for kind in kinds) << 10)

    process = multiprocessing.get_context("fork").Process(target=convert)
    process.start()
    send.close()
    try:
        return int(receive.recv())
    finally:
        process.join()


def differences(split: Split) -> tuple[float, float]:
    """(mean, largest) difference, in gray levels, of the images from those decoded whole."""
    found = []
    for index, data in enumerate(distinct_files(split)):
        image = Image.open(io.BytesIO(data))
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side)
        whole = image.resize((SIZE, SIZE), Image.Resampling.HAMMING, box)
        found.append(np.abs(np.asarray(whole).astype(int) - split.read(index).image))
    return float(np.mean(found)), float(np.max(found))


def bench(tar: Path, count: int, workers: Sequence[int], rounds: int) -> tuple[list[dict[str, Any]], clock.Spread]:
    """Each number of workers in turn, 0 reads in the process that writes; and the rate of the decoder alone."""
    path = beton_path(tar.parent, "imagenet64", "train")
    split = split_of(tar, count)
    found: dict[int, list[tuple[float, float]]] = {number: [] for number in workers}
    decoding = []
    for _ in range(rounds):
        decoding.append(decoding_rate(split))
        for number, measured in found.items():
            measured.append(rates(split, path, number))
    few = split_of(tar, max(1, count // 8))
    rows = []
    for number, measured in found.items():
        by_clock, of_a_core = (clock.spread(values) for values in zip(*measured, strict=True))
        rows.append(
            {
                "workers": number,
                "images_per_s": by_clock.median,
                "spread_images_per_s": by_clock.iqr,
                "images_per_s_a_core": of_a_core.median,
                "spread_images_per_s_a_core": of_a_core.iqr,
                "peak_bytes": peak_bytes(split, path, number),
                "peak_bytes_of_an_eighth": peak_bytes(few, path, number),
            }
        )
    return rows, clock.spread(decoding)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("bench_prepare", __doc__)
    parser.add_argument("--images", type=positive, default=2000, metavar="N", help="in each conversion (default 2000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="processes that read")
    parser.add_argument("--rounds", type=positive, default=5, help="conversions of each (default 5)")
    parser.add_outputs(chart=None)
    args = parser.parse_args(arguments)
    head = report.header(torch.device("cpu"))
    report.print_header(head)
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "n00000000.tar"
        mean_bytes = write_tar(tar, args.images)
        rows, decoding = bench(tar, args.images, args.workers, args.rounds)
        mean, largest = differences(split_of(tar, args.images))
    print(f"{args.images} JPEGs of {SHAPE[1]}x{SHAPE[0]}, {mean_bytes / 1e3:.0f} kB each")
    print("| workers | images/s | spread | images/s a core | spread | peak, MB | of an eighth, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in rows:
        print(
            f"| {r['workers']} | {r['images_per_s']:.0f} | {r['spread_images_per_s']:.0f} "
            f"| {r['images_per_s_a_core']:.0f} | {r['spread_images_per_s_a_core']:.0f} "
            f"| {r['peak_bytes'] / 1e6:.0f} | {r['peak_bytes_of_an_eighth'] / 1e6:.0f} |"
        )
    print(f"decoding alone: {decoding.median:.0f} images/s a core, spread {decoding.iqr:.0f}")
    print(f"against decoding whole: {mean:.2f} gray levels on average, {largest:.0f} at most")
    if args.json:
        report.write_json(
            args.json,
            head,
            rows,
            images=args.images,
            jpeg_bytes=mean_bytes,
            decoding_images_per_s=decoding.median,
            spread_decoding_images_per_s=decoding.iqr,
            mean_difference=mean,
            max_difference=largest,
        )


if __name__ == "__main__":
    main()
