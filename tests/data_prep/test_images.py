"""ali_fast.images; here, because the images are made by published.py and damaged by fuzzing.py."""

import io
import os
import struct
import time
import zlib

import fuzzing
import numpy as np
import published
import pytest
from PIL import Image, ImageOps

from ali_fast import images
from ali_fast.errors import InputError


def hamming(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


def weights(size: int, low: float, high: float, length: int) -> np.ndarray:
    """[size, length]: the antialiasing filter of each output pixel over low..high of an axis of `length` pixels."""
    scale = (high - low) / size
    centres = low + (np.arange(size) + 0.5) * scale
    table = hamming((np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1))
    return table / table.sum(1, keepdims=True)


def reference_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centred square of uint8 [H, W, C], resized by two matrix products in float64."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    rows, columns = weights(size, top, top + side, height), weights(size, left, left + side, width)
    across = np.tensordot(pixels.astype(float), columns, (1, 1))  # [H, C, size]
    return np.tensordot(rows, across, (1, 0)).transpose(0, 2, 1).round().clip(0, 255)


def square(image: Image.Image, size: int = 16, channels: int = 3, kind: str = "PNG", **save: object) -> np.ndarray:
    return images.decode_square(published.encode(image, kind, **save), "x", size, channels, upright=True)


# ------------------------------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (64, 64), (401, 200), (9, 200), (33, 32), (10, 7)])
def test_the_centred_square_equals_a_matrix_product(shape):
    image = published.photograph(1, *shape)
    found = square(image, 32)
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found - reference_square(np.asarray(image), 32)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (1300, 999), (2048, 2048), (256, 300)])
def test_a_jpeg_shrunk_through_its_dct_is_near_one_decoded_whole(width, height):
    image = published.photograph(2, width, height)
    data = published.encode(image, quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    found = images.decode_square(data, "x", 64, 3)
    difference = np.abs(found - reference_square(whole, 64))
    assert difference.mean() < 0.8
    assert np.percentile(difference, 99) <= 4


def test_the_square_is_not_shifted_by_rounding_in_the_dct():
    """A 1-pixel error in the box of an image shrunk to odd sizes would move this edge by a third of a pixel."""
    pixels = np.zeros((375, 501, 3), np.uint8)
    pixels[:, 251:] = 255
    data = published.encode(Image.fromarray(pixels), quality=98)
    difference = images.decode_square(data, "x", 64, 3) - reference_square(pixels, 64)
    assert np.abs(difference).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(orientation, kind):
    image = published.photograph(3, 90, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = published.encode(image, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = reference_square(np.asarray(upright), 24)
    found = images.decode_square(data, "x", 24, 3, upright=True)
    assert np.abs(found - expected).max() <= 1
    as_stored = images.decode_square(data, "x", 24, 3)
    stored = reference_square(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 24)
    assert np.abs(as_stored - stored).max() <= 1


def test_damaged_exif_is_no_fault_of_the_pixels():
    image = published.photograph(3, 40, 40)
    data = published.encode(image, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + os.urandom(50))
    assert square(image).shape == images.decode_square(data, "x", 16, 3, upright=True).shape


# --------------------------------------------------------------------------------------------------- modes


def uniform(mode: str, color: object) -> Image.Image:
    return Image.new(mode, (20, 20), color)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (uniform("L", 77), (77, 77, 77)),
        (uniform("1", 1), (255, 255, 255)),
        (uniform("RGB", (1, 2, 3)), (1, 2, 3)),
        (uniform("RGBA", (100, 0, 200, 0)), (255, 255, 255)),
        (uniform("RGBA", (100, 0, 200, 51)), (224, 204, 244)),
        (uniform("LA", (100, 51)), (224, 224, 224)),
        (uniform("I;16", 257 * 77 + 128), (77, 77, 77)),
        (uniform("I;16", 257 * 77 + 129), (78, 78, 78)),
        (uniform("I;16", 65535), (255, 255, 255)),
    ],
)
def test_modes_of_png(image, expected):
    assert (square(image) == expected).all()


def test_palettes_with_and_without_transparency():
    image = uniform("P", 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    assert (square(image) == (10, 20, 30)).all()
    assert (square(image, kind="GIF") == (10, 20, 30)).all()
    assert (square(image, transparency=1) == 255).all()
    assert (square(image, transparency=0) == (10, 20, 30)).all()


def test_transparency_does_not_bleed_into_what_is_resized():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (0, 0, 0, 255)
    pixels[:, 32:] = (255, 0, 0, 0)  # red, but not to be seen
    found = square(Image.fromarray(pixels), 8)
    assert (found[..., 0] == found[..., 1]).all()
    assert found[0, 0, 0] == 0
    assert found[0, -1, 0] == 255


def test_cmyk_and_other_formats():
    color = (200, 30, 90)
    cmyk = square(uniform("RGB", color).convert("CMYK"), kind="JPEG", quality=100)
    assert np.abs(cmyk.astype(int) - color).max() <= 3
    for kind, save in (("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})):
        assert (square(uniform("RGB", color), kind=kind, **save) == color).all()


def test_one_channel_is_luma():
    found = square(uniform("RGB", (200, 30, 90)), channels=1)
    assert found.shape == (16, 16, 1)
    assert abs(int(found[0, 0, 0]) - (0.299 * 200 + 0.587 * 30 + 0.114 * 90)) < 1
    assert (square(uniform("L", 77), channels=1) == 77).all()
    assert (square(uniform("RGBA", (0, 0, 0, 0)), channels=1) == 255).all()


def test_first_frame():
    frames = [uniform("L", 10), uniform("L", 200)]
    assert (square(frames[0], kind="GIF", save_all=True, append_images=frames[1:]) == 10).all()
    assert (square(frames[0], kind="MPO", save_all=True, append_images=frames[1:]) == 10).all()


@pytest.mark.parametrize("image", [uniform("F", 0.5), uniform("I", 70_000), uniform("I", -1)])
def test_floating_point_and_wide_integers_are_refused(image):
    with pytest.raises(InputError, match=r"image x: .*save it with 8 or 16 bits"):
        square(image, kind="TIFF")


# --------------------------------------------------------------------------------------------------- faults


def test_truncated_images_are_errors():
    image = published.photograph(4, 64, 48)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        data = published.encode(image, kind)
        for length in (0, 1, 10, len(data) // 2, len(data) * 3 // 4):
            with pytest.raises(InputError, match="image some/name"):
                images.decode_square(data[:length], "some/name", 8, 3)


def test_a_whole_image_has_to_have_its_size_and_format():
    data = published.encode(published.photograph(0, 20, 30))
    assert images.decode(data, "x", formats=("JPEG",), size=(20, 30)).size == (20, 30)
    with pytest.raises(InputError, match="20 x 30 pixels, should be 30 x 20"):
        images.decode(data, "x", formats=("JPEG",), size=(30, 20))
    with pytest.raises(InputError, match="accepted format"):
        images.decode(data, "x", formats=("PNG",), size=(20, 30))


def test_formats_whose_decoders_start_programs_are_not_tried():
    with pytest.raises(InputError, match="accepted format"):
        images.decode_square(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "x", 8, 3)


def test_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "fine.jpg").write_bytes(b"123")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    assert images.read_image_file(tmp_path / "fine.jpg", "fine") == b"123"
    for name in ("pipe.jpg", "huge.jpg", "absent.jpg"):
        with pytest.raises(InputError, match=f"image {name}"):
            images.read_image_file(tmp_path / name, name)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_bombs_cost_no_memory():
    """100 megapixels as PNG, JPEG, GIF, BMP, WebP, TIFF and PPM, a PNG whose text inflates to 512 MB."""
    side = 10_000
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    text = b"zTXtkey\0\0"[:4], b"key\0\0\x78\x9c" + published.deflated_zeros(1 << 29)
    jpeg = bytearray(published.encode(uniform("RGB", 0)))
    at = jpeg.find(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, at + 5, side, side)
    gif = bytearray(published.encode(uniform("P", 0), "GIF"))
    struct.pack_into("<HH", gif, 6, side, side)
    bmp = bytearray(published.encode(uniform("RGB", 0), "BMP"))
    struct.pack_into("<ii", bmp, 18, side, side)
    webp = bytearray(published.encode(uniform("RGB", 0), "WEBP", lossless=True))
    struct.pack_into("<I", webp, 21, (side - 1) | (side - 1) << 14)
    tiff = bytearray(published.encode(uniform("L", 0), "TIFF"))
    for tag in (256, 257):
        entry = tiff.find(struct.pack("<HH", tag, 4))
        entry = entry if entry >= 0 else tiff.find(struct.pack("<HH", tag, 3))
        struct.pack_into("<HHII", tiff, entry, tag, 4, 1, side)
    end = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    small = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    bombs = {
        "png": png + end,
        "text": small + chunk(*text) + end,
        "jpeg": jpeg,
        "gif": gif,
        "bmp": bmp,
        "webp": webp,
        "tiff": tiff,
        "ppm": b"P6 10000 10000 255\n" + bytes(100),
    }

    def refuse() -> dict[str, str]:
        messages = {}
        for name, data in bombs.items():
            with pytest.raises(InputError) as caught:
                images.decode_square(bytes(data), name, 8, 3, upright=True)
            messages[name] = str(caught.value)
        return messages

    messages, growth = fuzzing.in_child(refuse)
    for name in set(bombs) - {"text", "webp"}:
        assert messages[name] == f"image {name}: 10000 x 10000 pixels, at most {images.MAX_PIXELS} are accepted"
    assert growth < 64 << 20


def test_the_largest_image_that_is_accepted_takes_bounded_memory():
    side = int(images.MAX_PIXELS**0.5)
    row = b"\0" + bytes(4 * side)
    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(row * 64) for _ in range(side // 64)) + squeeze.flush()
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    data = header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    pixel, growth = fuzzing.in_child(lambda: images.decode_square(data, "x", 1, 3).tolist())
    assert pixel == [[[255, 255, 255]]]
    assert growth < 900 << 20


def test_a_jpeg_of_endless_scans_is_refused():
    data = published.encode(published.photograph(0, 64, 64), progressive=True)
    last = data.rfind(b"\xff\xda")
    with pytest.raises(InputError, match="scans"):
        images.decode_square(data[:last] + data[last:-2] * 200 + data[-2:], "x", 8, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_sequential_jpegs_end_with_their_first_scan(mode):
    """Their scans need no counting, which takes a twentieth of the decoding: the decoder takes no more of them."""
    picture = published.photograph(0, 64, 64).convert(mode)
    data, progressive = published.encode(picture), published.encode(picture, progressive=True)
    image = Image.open(io.BytesIO(data))
    assert images._has_one_scan(image, data)
    assert not images._has_one_scan(Image.open(io.BytesIO(progressive)), progressive)
    more = data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 500 + data[-2:]
    began = time.process_time()
    with pytest.raises(InputError, match="broken data stream"):
        images.decode_square(more, "x", 16, 3)
    assert time.process_time() - began < 0.5


def test_fuzz():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    originals = [
        published.encode(picture, exif=exif),
        published.encode(picture, progressive=True),
        published.encode(picture.convert("CMYK")),
        published.encode(picture, "PNG", exif=exif),
        published.encode(picture.convert("P"), "PNG", transparency=3),
        published.encode(uniform("I;16", 500), "PNG"),
        published.encode(picture, "WEBP", lossless=True),
        published.encode(picture, "WEBP", exif=exif),
        published.encode(picture, "BMP"),
        published.encode(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]),
        published.encode(picture, "TIFF", compression="tiff_lzw"),
        published.encode(picture, "TIFF", compression="jpeg"),
        published.encode(picture, "TIFF"),
        published.encode(picture, "PPM"),
    ]

    def fuzz() -> tuple[int, int]:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff's own remarks
        return fuzzing.only_input_errors(
            lambda data: images.decode_square(data, "x", 8, 3, upright=True), fuzzing.mutations(originals, 6000, seed=5)
        )

    (accepted, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 2000
    assert accepted > 100
    assert growth < 1200 << 20
