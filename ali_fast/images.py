"""One image file's bytes -> uint8 pixels: bounded in memory and time, by one stated rule for every mode.

The rule of data_prep, which makes what a model is trained on, and of `encode` and its like, which show it more.

- Formats: JPEG, PNG, WebP, BMP, GIF, TIFF, PPM; the first frame. No others are tried: some of Pillow's decoders start
  programs.
- Above MAX_PIXELS an image is refused from its header, before anything is decoded. A truncated image is an error.
- Palettes become the colours they stand for. Transparent pixels are laid over white. Gray is repeated over three
  channels; colour becomes one channel by ITU-R 601 luma. CMYK, YCbCr and 16-bit colour become 8-bit RGB as Pillow has
  it; 16-bit gray is divided by 257 and rounded; floating-point images and wider integers are refused.
- EXIF orientation is applied where the caller asks: to anyone's own images, not to published sets, whose pixels are
  taken as they are.

Every fault is an InputError naming the image.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ali_fast.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
HIDDEN = (".", "__MACOSX")  # how the names begin that are passed over in a folder: ._a.jpg is a Mac's note on a.jpg
MAX_PIXELS = 1 << 26  # 67 megapixels, above a 50-megapixel camera's; 270 MB once decoded
MAX_FILE_BYTES = 1 << 28
FEED_BYTES = 1 << 20  # libjpeg is slow at the end of each piece: Pillow's of 64 KiB take 2 to 5 % longer
MAX_SCANS = 100  # a progressive JPEG has about ten; each costs a pass over all pixels
SCAN = b"\xff\xda"  # the marker that starts one
GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 2 to 8 say how it is turned
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_images(root: Path) -> Iterator[str]:
    """Paths from `root` of the image files in it and below, by their suffixes; what is hidden is passed over.

    Each folder is entered once: links may lead in circles. Raises InputError for one that cannot be read.
    """
    folders, seen = [""], set()
    while folders:
        inside = folders.pop()
        try:
            status = os.stat(root / inside)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / inside) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = f"{inside}/{entry.name}" if inside else entry.name
                    if entry.name.startswith(HIDDEN):
                        continue
                    if entry.is_dir():
                        folders.append(path)
                    elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                        yield path
        except OSError as error:
            raise InputError(f"cannot read {root / inside}: {error.strerror}") from None


def decode(data: bytes, name: str, *, formats: tuple[str, ...], size: tuple[int, int]) -> Image.Image:
    """The whole image, which has to be `size` (width, height), in mode L, RGB or RGBA."""
    with _faults(name):
        image = _open(data, name, formats)
        if image.size != size:
            raise InputError(f"image {name}: {image.size[0]} x {image.size[1]} pixels, should be {size[0]} x {size[1]}")
        return _plain(image, name)


def decode_square(
    data: bytes, name: str, size: int, channels: int, *, formats: tuple[str, ...] = FORMATS, upright: bool = False
) -> np.ndarray:
    """The largest centred square, resized with antialiasing to uint8 [size, size, channels]; channels 1 or 3.

    A JPEG whose shorter side is at least four times `size` is decoded at 1/2, 1/4 or 1/8 through its DCT, never
    below twice `size`; the result is within one gray level on average of decoding it whole.
    `upright` applies the EXIF orientation.
    """
    with _faults(name):
        image = _open(data, name, formats)
        width, height = image.size
        drafted = image.draft(None, (2 * size, 2 * size))
        shrunk = 1.0 if drafted is None else drafted[1][2] / width  # image.size is rounded up, this is not
        side, left, top = min(width, height), (width - min(width, height)) / 2, (height - min(width, height)) / 2
        box = tuple(edge * shrunk for edge in (left, top, left + side, top + side))
        plain = _plain(image, name)
        small = plain.resize((size, size), Image.Resampling.HAMMING, box)  # type: ignore[arg-type]
        turn = UPRIGHT.get(_orientation(image)) if upright else None
        return flatten(small if turn is None else small.transpose(turn), channels)


def flatten(image: Image.Image, channels: int) -> np.ndarray:
    """An image of mode L, RGB or RGBA as uint8 [height, width, channels], transparency laid over white."""
    if image.mode == "RGBA":
        under = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(under, image).convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def read_image_file(path: Path, name: str) -> bytes:
    """The bytes of an image file, if it is a regular file of sane size (a pipe would wait for ever)."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_FILE_BYTES:
            raise InputError(f"image {name}: not a file of at most {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"image {name}: cannot be read: {error.strerror}") from None


def _open(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    """The image with its header read and looked at, its pixels not yet decoded."""
    image = Image.open(io.BytesIO(data), formats=formats)
    image.decodermaxblock = FEED_BYTES
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"image {name}: {width} x {height} pixels, at most {MAX_PIXELS} are accepted")
    # MPO is a JPEG with more after it, as some cameras and telephones write: a subclass.
    if isinstance(image, JpegImageFile) and not _has_one_scan(image, data) and data.count(SCAN) > MAX_SCANS:
        raise InputError(f"image {name}: more than {MAX_SCANS} scans in one JPEG")
    return image


def _has_one_scan(image: JpegImageFile, data: bytes) -> bool:
    """Whether a sequential JPEG has all its components in its first scan, after which the decoder stops."""
    if image.format != "JPEG" or "progressive" in image.info:
        return False
    assert image.fp is not None
    header = 6 + 2 * image.layers  # Pillow has read as far as the end of the first scan's
    at = image.fp.tell() - header
    return data[at - 2 : at + 3] == SCAN + header.to_bytes(2, "big") + bytes([image.layers])


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Decoded, in mode L, RGB or RGBA."""
    image.load()
    if image.mode in GRAY_16:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise InputError(f"image {name}: integers of more than 16 bits; save it with 8 or 16 bits a channel")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"image {name}: floating-point pixels; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged note about the image is no fault of its pixels
        return 1


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file (it may be anything) becomes one InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            what = str(error) or type(error).__name__
            if isinstance(error, Image.UnidentifiedImageError):
                what = "not an image of an accepted format"
            raise InputError(f"image {name}: {what.splitlines()[0]}") from None
