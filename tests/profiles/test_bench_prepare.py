import io
import json

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from data_prep import imagenet64
from profiles import bench_prepare


def test_its_images_have_the_size_and_spectrum_of_imagenets(tmp_path):
    mean_bytes = bench_prepare.write_tar(tmp_path / "n00000000.tar", 6)
    in_the_tar = imagenet64.TAR_BYTES[imagenet64.TRAIN_TAR] / imagenet64.COUNTS["train"]
    published = in_the_tar - 512 - 256  # a header each, and what fills its last block of 512
    assert published <= mean_bytes < 1.03 * published
    data, _ = bench_prepare.split_of(tmp_path / "n00000000.tar", 1).read.images.read(0)
    assert get_sampling(Image.open(io.BytesIO(data))) == 0  # 4:4:4
    image = np.asarray(bench_prepare.photograph(np.random.default_rng(0), 256, 256), float).mean(-1)
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    bands = [(frequency > low) & (frequency < 1.2 * low) for low in (0.05, 0.2)]
    low, high = (power[band].mean() for band in bands)
    assert 0.7 < low / high / 4**2.4 < 1.4


def test_it_prints_and_writes_every_row(tmp_path, capsys):
    arguments = ["--images", "16", "--workers", "0", "2", "--rounds", "2", "--json", str(tmp_path / "p.json")]
    bench_prepare.main(arguments)
    values = json.loads((tmp_path / "p.json").read_text())
    assert [row["workers"] for row in values["rows"]] == [0, 2]
    for row in values["rows"]:
        assert row["images_per_s_a_core"] > 0
        assert row["peak_bytes"] >= row["peak_bytes_of_an_eighth"] - (8 << 20)
    assert values["decoding_images_per_s"] > 0
    assert 0 < values["mean_difference"] < 1.5
    out = capsys.readouterr().out
    assert "$ python" in out
    assert out.count("\n| ") == 4
