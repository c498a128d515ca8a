"""The subcommands that use a trained run: pictures, codes, an export. Heavy imports sit inside `run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from ali_fast import presets
from ali_fast.errors import InputError
from ali_fast.flags import at_least, write_json
from ali_fast.seeds import check_seed

if TYPE_CHECKING:
    from ali_fast.data.samples import Samples
    from ali_fast.figures import Images
    from ali_fast.inference import Given, Inference

Output = Annotated[Path | None, arg(aliases=["-o"])]


@dataclass(frozen=True)
class Sample:
    """Draw images from the prior."""

    SUFFIX: ClassVar[str] = ".png"

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    output: Output = None
    """The picture, a PNG; by default samples.png here."""
    n: int = 100
    """How many."""
    columns: int = 10
    """In how many columns."""
    seed: int = 0
    """Of the noise."""
    y: str | None = None
    """Of a conditional run: the class, or the attributes with commas between, of all images; by default the classes in
    turn, or the attributes of validation images."""
    data_dir: Path | None = None
    """Where these are; by default where the run found them."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n, columns=self.columns)
        check_seed(self.seed)
        ali = load(self.directory)
        y = asked(ali, self.directory, self.n, self.data_dir) if self.y is None else told(ali, self.y, self.n)
        images = ali.sample(self.n, self.seed, y).numpy()
        draw(figures.grid(images, self.columns), self.output or Path("samples.png"))


@dataclass(frozen=True)
class Reconstruct:
    """Draw images beside their reconstructions: originals in the odd columns."""

    SUFFIX: ClassVar[str] = ".png"

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files or directories of them; by default the run's first validation images."""
    output: Output = None
    """The picture, a PNG; by default reconstructions.png here."""
    n: int = 50
    """How many, at most."""
    y: str | None = None
    """Of a conditional run: the class, or the attributes with commas between, of all images given; validation images
    have their own."""
    data_dir: Path | None = None
    """Where the validation images are; by default where the run found them."""
    json: Path | None = None
    """Also write the reconstruction error (mean squared difference, pixels in [0, 1]) to this file."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n)
        ali = load(self.directory)
        originals, y = originals_for(ali, self.directory, self.images, self.n, self.y, self.data_dir)
        error = ali.reconstruction_error(originals, y)
        draw(
            figures.reconstructions(originals, ali.reconstruct(originals, y).numpy()),
            self.output or Path("reconstructions.png"),
        )
        print(f"reconstruction error {error:.5f} over {len(originals)} images")
        write_json(self.json, {"reconstruction_error": error, "images": len(originals)})


@dataclass(frozen=True)
class Interpolate:
    """Draw the way between pairs of images through the latent space, the originals at the ends."""

    SUFFIX: ClassVar[str] = ".png"

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files or directories: first with second, third with fourth, ...; by default validation images."""
    output: Output = None
    """The picture, a PNG; by default interpolations.png here."""
    n: int = 10
    """Pairs, at most."""
    steps: int = 8
    """Decoded images in each row."""
    seed: int = 0
    """Of the codes' noise."""
    y: str | None = None
    """Of a conditional run: the class, or the attributes with commas between, of all images given; validation images
    have their own."""
    data_dir: Path | None = None
    """Where the validation images are; by default where the run found them."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n, steps=self.steps)
        check_seed(self.seed)
        ali = load(self.directory)
        originals, y = originals_for(ali, self.directory, self.images, 2 * self.n, self.y, self.data_dir)
        if len(originals) < 2:
            raise InputError("interpolation needs at least two images")
        if len(originals) % 2:
            print(f"of {len(originals)} images the last one is left out: it has no partner")
        starts, ends = slice(0, len(originals) // 2 * 2, 2), slice(1, None, 2)
        first, last = originals[starts], originals[ends]
        of_ends = None if y is None else (y[starts], y[ends])
        between = ali.interpolate(first, last, self.steps, self.seed, of_ends).numpy()
        draw(figures.interpolations(first, between, last), self.output or Path("interpolations.png"))


@dataclass(frozen=True)
class Traverse:
    """Draw what a condition changes: one code (z) decoded under one condition after another, of a conditional run.

    By default, for CelebA's attributes the paper's figure 7 (whose first column has the row's attributes alone), for
    classes a grid of classes by codes.
    """

    SUFFIX: ClassVar[str] = ".png"

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    rows: tuple[str, ...] = ()
    """What the images of each row have: attributes with commas between, such as Male,Young Young; "" for none."""
    columns: tuple[str, ...] = ()
    """What those of each column have as well: attributes likewise, or a class each."""
    output: Output = None
    """The picture, a PNG; by default traverse.png here."""
    n: int | None = None
    """Codes, each with all the rows; by default 1 with attributes, 10 with classes."""
    seed: int = 0
    """Of the codes."""

    def run(self) -> None:
        from ali_fast import load, traverse

        at_least(1, n=self.n)
        check_seed(self.seed)
        sheet = traverse.sheet(load(self.directory), self.rows, self.columns, codes=self.n, seed=self.seed)
        draw(sheet, self.output or Path("traverse.png"))


@dataclass(frozen=True)
class Encode:
    """Infer the codes of images: an .npz with mu and log_sigma, float32 [N, L], and the file names."""

    SUFFIX: ClassVar[str] = ""  # np.load takes any name

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]]
    """Image files or directories of them; scaled and centre-cropped to the model's size."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("codes.npz")
    """Where the codes go."""
    y: str | None = None
    """Of a conditional run: the class, or the attributes with commas between, of all images."""

    def run(self) -> None:
        import numpy as np

        from ali_fast import load
        from ali_fast.files import output
        from ali_fast.pictures import list_pictures, read_pictures

        if not self.images:
            raise InputError("encode needs image files or directories after RUN")
        ali, files = load(self.directory), list_pictures(self.images)
        codes = ali.encode(read_pictures(files, ali.image_shape), told(ali, self.y, len(files)))
        with output(self.output) as name, name.open("wb") as file:  # np.savez would append .npz to another name
            np.savez(file, mu=codes.mu.numpy(), log_sigma=codes.log_sigma.numpy(), files=[str(f) for f in files])
        print(f"codes of {len(files)} images in {self.output}")


@dataclass(frozen=True)
class Export:
    """Write the newest checkpoint's networks to RUN/export as safetensors and a config.json."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory."""

    def run(self) -> None:
        from ali_fast.api import export

        print(f"exported to {export(self.directory)}")


def draw(sheet: Images, path: Path) -> None:
    """Write uint8 [H, W, C] as a PNG, and say where."""
    from ali_fast.figures import write_png

    write_png(sheet, path)
    print(f"drawn: {path}")


def told(ali: Inference, text: str | None, count: int) -> Given | None:
    """y uint8 [count, K] of images that all have what `text` names; None where nothing is said."""
    if text is None:
        return None
    if ali.condition is None:
        raise InputError(f"--y {text}: only a conditional run is told anything of its images")
    try:
        return ali.condition.rows([ali.condition.parse(text)] * count)
    except InputError as error:
        raise InputError(f"--y {text or '(nothing)'}: {error}") from None


def asked(ali: Inference, run: Path, count: int, data_dir: Path | None = None) -> Given | None:
    """y of `count` images to be drawn by a conditional run: all classes in turn, or validation images' attributes."""
    if ali.condition is None:
        return None
    known = validation(ali, run, count, data_dir).y if ali.condition.kind == "attributes" else None
    return ali.condition.in_turn(count, known)


def originals_for(
    ali: Inference, run: Path, images: tuple[Path, ...], most: int, text: str | None, data_dir: Path | None = None
) -> tuple[Images, Given | None]:
    """uint8 [at most `most`, H, W, C], the files given, else the run's first validation images; and, for a conditional
    run, their y: what `text` says, else the validation images' own."""
    from ali_fast.pictures import list_pictures, read_pictures

    if images:
        pictures = read_pictures(list_pictures(images)[:most], ali.image_shape)
        return pictures, told(ali, text, len(pictures))
    samples = validation(ali, run, most, data_dir)
    own = None if ali.condition is None else samples.y
    return samples.images.numpy(), own if text is None else told(ali, text, len(samples.images))


def validation(ali: Inference, run: Path, most: int, data_dir: Path | None = None) -> Samples:
    """The first images, at most `most`, that the run is validated on, and what is known of them.

    data_dir: where they are, if not where the run found them.

    Raises InputError for an export, which does not know them, and where they are others by now.
    """
    from ali_fast.api import check_same_data
    from ali_fast.data.loader import first_samples
    from ali_fast.data.schema import beton_path
    from ali_fast.run_directory import RunDirectory, is_export

    if is_export(run):
        raise InputError(f"{run} is an export, without validation images: give images, or --y to sample, or its run")
    trained = RunDirectory(run).read_config()
    preset = presets.resolve(trained.dataset, trained.preset)
    data_dir = data_dir or trained.data_dir
    check_same_data(ali, data_dir, preset)
    return first_samples(beton_path(data_dir, trained.dataset, preset.valid_split), most)
