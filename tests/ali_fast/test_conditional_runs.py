"""Conditional runs: what one draws and is asked for; CelebA on files in the published format, to figure 7."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import ali_fast
from ali_fast import arch, checkpoint, cli, figures, presets
from ali_fast.condition import Condition
from ali_fast.config import TrainConfig
from ali_fast.data.loader import first_samples
from ali_fast.data.schema import beton_path
from ali_fast.inference import normal
from data_prep.split import Sample, Split
from data_prep.writer import write_splits

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For the runs that tests share as for those beside them: the bits of a run depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(dataset, data, run, *more, steps=2):
    flags = ["--data-dir", data, "--run-dir", run, "--steps", steps, "--device", "cpu", "--no-compile", *more]
    return cli.main(["train", "--dataset", dataset, "--objective", "conditional", *map(str, flags)])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A data folder and a run in it, both for reading only."""
    root = tmp_path_factory.mktemp("digits")
    assert cli.main(["prepare", "digits", "--data-dir", str(root / "data")]) == 0
    assert train("digits", root / "data", root / "run", "--batch-size", 16, steps=4) == 0
    return root


def newest(run):
    found = checkpoint.read_newest(run / "checkpoints", warn=pytest.fail)
    assert found is not None
    return found[1]


def test_presets_and_folders():
    paper = TrainConfig(dataset="celeba", objective="conditional").resolved()
    assert (paper.preset, paper.batch_size, str(paper.run_dir)) == (
        "celeba-conditional",
        128,
        "runs/celeba-conditional",
    )
    assert TrainConfig(dataset="celeba").resolved().batch_size == 100
    same = TrainConfig(dataset="celeba", preset="celeba", objective="conditional").resolved()
    assert (same.batch_size, str(same.run_dir)) == (100, "runs/celeba-conditional")
    digits = TrainConfig(dataset="digits", objective="conditional").resolved()
    assert (digits.preset, digits.batch_size, str(digits.run_dir)) == ("digits", 100, "runs/digits-conditional")


def test_a_resident_run_is_the_streamed_run(digits, tmp_path):
    assert train("digits", digits / "data", tmp_path, "--batch-size", 16, "--data", "resident", steps=4) == 0
    ours, theirs = (newest(run)["step"]["model"] for run in (tmp_path, digits / "run"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    figure = "figures/traverse.png"
    assert (tmp_path / figure).read_bytes() == (digits / "run" / figure).read_bytes()


def test_what_the_run_draws(digits, tmp_path):
    """Samples have the classes along the columns, the traverse a code in each row: both by hand from the checkpoint."""
    ali = ali_fast.load(digits / "run")
    assert ali.condition == Condition("classes", tuple(map(str, range(10))))
    drawn = Image.open(digits / "run" / "figures" / "samples.png")
    expected = figures.grid(ali.sample(100, y=torch.arange(100) % 10).numpy(), 10)[..., 0]
    assert np.array_equal(np.asarray(drawn), expected)
    z, y = normal("z", (10, 16), 0).repeat_interleave(10, 0), torch.arange(100) % 10
    expected = figures.grid(ali.decode(z, y).numpy(), 10)[..., 0]
    assert np.array_equal(np.asarray(Image.open(digits / "run" / "figures" / "traverse.png")), expected)
    assert "Conditions" in (digits / "run" / "report.html").read_text()
    assert cli.main(["traverse", str(digits / "run"), "-o", str(tmp_path / "t.png")]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "t.png")), expected)
    assert cli.main(["sample", str(digits / "run"), "-o", str(tmp_path / "s.png")]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "s.png")), np.asarray(drawn))


def test_reconstructions_have_their_own_y(digits):
    run = digits / "run"
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    valid = first_samples(beton_path(digits / "data", "digits", "valid"), 100)
    ali = ali_fast.load(run)
    assert line["reconstruction_error"] == pytest.approx(ali.reconstruction_error(valid.images, valid.labels))
    assert line["reconstruction_error"] != ali.reconstruction_error(valid.images, (valid.labels + 1) % 10)


def test_commands_on_a_run(digits, tmp_path, monkeypatch):
    run, ali = str(digits / "run"), ali_fast.load(digits / "run")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", run, "--y", "3", "--n", "1", "--columns", "1", "--seed", "2"]) == 0
    assert np.array_equal(
        np.asarray(Image.open("samples.png"))[2:-2:6, 2:-2:6], ali.sample(1, 2, torch.tensor([3]))[0, ..., 0]
    )
    assert cli.main(["reconstruct", run, "--n", "6", "--json", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["images"] == 6
    assert cli.main(["reconstruct", run, "samples.png", "--y", "3"]) == 0
    assert cli.main(["interpolate", run, "--n", "2", "--steps", "3"]) == 0
    assert cli.main(["interpolate", run, "samples.png", "samples.png", "--y", "3"]) == 0
    assert cli.main(["encode", run, "samples.png", "--y", "3", "-o", "three.npz"]) == 0
    assert cli.main(["encode", run, "samples.png", "--y", "4", "-o", "four.npz"]) == 0
    assert not np.array_equal(np.load("three.npz")["mu"], np.load("four.npz")["mu"])
    assert cli.main(["export", run]) == 0
    exported = str(digits / "run" / "export")
    for source in (run, exported):
        assert (
            cli.main(["traverse", source, "--columns", "7", "1", "--n", "3", "--seed", "4", "-o", f"{len(source)}.png"])
            == 0
        )
    assert (tmp_path / f"{len(run)}.png").read_bytes() == (tmp_path / f"{len(exported)}.png").read_bytes()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("said", [None, 3])
def test_validation_images_have_their_own_y_unless_one_is_said(digits, tmp_path, said):
    ali, valid = ali_fast.load(digits / "run"), first_samples(beton_path(digits / "data", "digits", "valid"), 6)
    drawn, y = tmp_path / "r.png", valid.labels if said is None else torch.full((6,), said)
    more = [] if said is None else ["--y", str(said)]
    assert cli.main(["reconstruct", str(digits / "run"), "--n", "6", "-o", str(drawn), *more]) == 0
    expected = figures.reconstructions(valid.images.numpy(), ali.reconstruct(valid.images, y).numpy())
    assert np.array_equal(np.asarray(Image.open(drawn)), expected[..., 0])


def test_mistakes_are_one_line_and_exit_code_2(digits, tmp_path, capsys, monkeypatch):
    run = str(digits / "run")
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("own.png")

    def refused(*arguments, says):
        capsys.readouterr()
        assert cli.main(list(arguments)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert says in err, err

    refused("traverse", run, "--columns", "3", "ten", says="no class 'ten'; there are: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9")
    refused("traverse", run, "--rows", "1", "--columns", "3", says="1, 3: an image is of one class")
    refused("traverse", run, "--n", "0", says="--n 0: must be at least 1")
    refused("traverse", run, "-o", "absent/t.png", says="absent")
    refused("traverse", "absent", says="is no run directory")
    refused("encode", run, "own.png", says="this run is conditional: it has to be told")
    refused("reconstruct", run, "own.png", says="this run is conditional: it has to be told")
    refused("sample", run, "--y", "ten", says="--y ten: no class 'ten'; there are: 0, 1")
    refused("sample", run, "--y", "", says="--y (nothing): nothing: an image is of one class; there are: 0, 1")
    plain = tmp_path / "plain"
    flags = ["--data-dir", digits / "data", "--run-dir", plain, "--steps", 1, "--no-compile", "--batch-size", 4]
    assert cli.main(["train", "--dataset", "digits", "--device", "cpu", *map(str, flags)]) == 0
    refused("traverse", str(plain), says="a run of objective ali has no condition to vary")
    refused("sample", str(plain), "--y", "3", says="--y 3: only a conditional run is told anything")
    refused(
        "train", "--dataset", "digits", *map(str, flags), "--objective", "conditional", says="objective: ali -> cond"
    )


def test_a_set_without_labels_is_named(tmp_path, capsys):
    def read(i):
        return Sample(np.full((8, 8, 1), i, np.uint8), None)

    made = Split(30, (8, 8, 1), read, (), (), {"arrays": "0" * 64})
    write_splits({beton_path(tmp_path, "folder", split): made for split in ("train", "valid", "test")})
    capsys.readouterr()
    assert train("folder", tmp_path, tmp_path / "run", "--preset", "digits", "--batch-size", 8) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "folder/train.beton has neither class labels nor attributes" in err


# --------------------------------------------------------------------------------------------------------- CelebA

SMALL_CELEBA = arch.Architecture(
    image_channels=3,
    image_size=64,
    z_dim=4,
    slope=0.02,
    encoder=(arch.conv_bn(8, 8, 6), arch.conv_bn(8, 1, 8), arch.codes(4)),
    decoder=(arch.transposed_bn(8, 1, 6), arch.transposed_bn(8, 8, 4), arch.image(3)),
    discriminator_x=(arch.conv(8, 8, 6, dropout=0.2, bias="tied"), arch.conv_bn(8, 1, 8, dropout=0.2)),
    discriminator_z=(arch.conv(1, 1, 8, dropout=0.2),),
    discriminator_xz=(arch.conv(1, 1, 8, dropout=0.2, bias="tied"), arch.logit(0.2)),
)


@pytest.fixture
def published_celeba(tmp_path, monkeypatch, celeba_names):
    """A folder with the publisher's three files, of 18 made images, taken for the published ones."""
    from pathlib import Path

    from data_prep import celeba
    from data_prep.download import Published

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data_prep"))
    import published

    monkeypatch.setattr(published, "ATTRIBUTES", list(celeba_names))
    files, _, attributes = published.celeba((10, 5, 3))
    monkeypatch.setattr(celeba, "COUNTS", dict(zip(celeba.COUNTS, (10, 5, 3), strict=True)))
    for place, name in zip(("IMAGES", "ATTRIBUTES", "PARTITION"), files, strict=True):
        digest = hashlib.sha256(files[name]).hexdigest()
        monkeypatch.setattr(celeba, place, Published(name, len(files[name]), digest))
    return published.put(tmp_path / "source", files), attributes


def of_celeba(source, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    assert cli.main(["prepare", "celeba", "--source", str(source), "--data-dir", str(data)]) == 0
    assert train("celeba", data, run, "--batch-size", 4) == 0
    assert cli.main(["traverse", str(run), "-o", str(tmp_path / "t.png")]) == 0
    assert Image.open(tmp_path / "t.png").size == (12 * 66 + 2, 4 * 66 + 2)
    return run


def test_celeba_from_its_published_files_to_figure_7(published_celeba, tmp_path, monkeypatch, capsys, celeba_names):
    source, attributes = published_celeba
    small = [
        dataclasses.replace(preset, architecture=SMALL_CELEBA) if preset.dataset == "celeba" else preset
        for preset in presets.PRESETS
    ]
    monkeypatch.setattr(presets, "PRESETS", tuple(small))
    run = of_celeba(source, tmp_path)
    ali = ali_fast.load(run)
    assert ali.condition == Condition("attributes", celeba_names)
    assert json.loads((run / "config.json").read_text())["preset"] == "celeba-conditional"
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "t.png")), np.asarray(Image.open(run / "figures/traverse.png"))
    )
    from ali_fast import figures

    valid = torch.from_numpy(attributes[10:15].astype(np.uint8))
    expected = figures.grid(ali.sample(100, y=valid.repeat(20, 1)).numpy(), 10)
    assert np.array_equal(np.asarray(Image.open(run / "figures/samples.png")), expected)
    assert cli.main(["sample", str(run), "--n", "7", "-o", str(tmp_path / "s.png")]) == 0
    expected = figures.grid(ali.sample(7, y=valid[[0, 1, 2, 3, 4, 0, 1]]).numpy(), 10)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "s.png")), expected)
    wanted = ["--rows", "Male,Bald", "Young", "--columns", "", "Smiling", "--n", "2", "-o", str(tmp_path / "n.png")]
    assert cli.main(["traverse", str(run), *wanted]) == 0
    assert Image.open(tmp_path / "n.png").size == (2 * 66 + 2, 4 * 66 + 2)
    assert cli.main(["export", str(run)]) == 0
    assert cli.main(["sample", str(run / "export"), "--y", "Male,Young", "-o", str(tmp_path / "s.png")]) == 0
    refusals = {
        (
            "traverse",
            str(run),
            "--rows",
            "Male,Old",
        ): "no attribute 'Old'; there are: 5_o_Clock_Shadow, Arched_Eyebrows, ",
        ("sample", str(run / "export")): "export is an export, without validation images",
    }
    for arguments, says in refusals.items():
        capsys.readouterr()
        assert cli.main(list(arguments)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert says in err


@pytest.mark.slow
def test_celeba_with_the_papers_networks(published_celeba, tmp_path):
    run = of_celeba(published_celeba[0], tmp_path)
    weights = newest(run)["step"]["model"]
    assert weights["embedding.products.0.weight"].shape == (256, 40, 1, 1)
    assert weights["encoder.products.5.weight"].shape == (512, 512 + 256, 1, 1)
    assert weights["decoder.products.0.weight"].shape == (256 + 256, 512, 4, 4)
    assert weights["discriminator.xz.products.0.weight"].shape == (2048, 512 + 1024 + 256, 1, 1)
