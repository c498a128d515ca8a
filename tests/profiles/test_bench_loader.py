import json

import pytest
import torch

from profiles import bench_loader

CPU = torch.device("cpu")
SHAPE = (4, 4, 3)


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "noise" / "train.beton"
    bench_loader.noise(path, 60, SHAPE)
    return path


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way == bench_loader.STREAM)) for way in bench_loader.WAYS]
)  # FFCV compiles its reader for as long as all the rest takes
def test_every_way_brings_every_image_of_an_epoch(noise, way):
    epoch = bench_loader.WAYS[way](noise, 20, CPU)
    for number in range(2):
        batches = list(epoch(number))
        assert [batch.shape for batch in batches] == [(20, *SHAPE)] * 3
        assert len(torch.cat(batches).flatten(1).unique(dim=0)) == 60


def test_what_is_written(tmp_path, monkeypatch, capsys):
    flags = ["--images", "60", "--batch-size", "20", "--rounds", "2", "--device", "cpu"]
    written = ["--json", str(tmp_path / "loader.json"), "--chart", str(tmp_path / "loader.png")]
    monkeypatch.setattr(bench_loader.importlib.util, "find_spec", lambda name: None)  # as if FFCV were not there
    bench_loader.main([*flags, *written])
    rows = json.loads((tmp_path / "loader.json").read_text())["rows"]
    printed = capsys.readouterr().out
    assert [row["name"] for row in rows] == ["torch DataLoader", "resident"]
    for row in rows:
        assert row["images_per_s"] > 0
        assert row["first_batch_s"] > 0
        assert f"| {row['name']} |" in printed
    assert (tmp_path / "loader.png").read_bytes().startswith(b"\x89PNG")


def test_a_rate_is_without_what_the_first_batch_takes(hand_clock):
    def epoch(number):
        for seconds in (60.0, 0.5, 0.5):
            hand_clock.now += seconds
            yield torch.empty(20, *SHAPE)

    assert bench_loader.images_per_s(epoch, 0, CPU) == 40.0
