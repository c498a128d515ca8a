"""`ali-fast evaluate` on a run of the digits whose weights are random."""

import dataclasses
import errno
import io
import json
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from rich.console import Console

import ali_fast
from ali_fast import checkpoint, cli, config, kernels, presets
from ali_fast.config import TrainConfig
from ali_fast.data.balanced import balanced_draws
from ali_fast.data.labelled import labelled_subset
from ali_fast.data.loader import BetonLoader
from ali_fast.data.order import Order
from ali_fast.data.schema import beton_path, read_manifest
from ali_fast.evaluate import classifier, distances, features, inception, labels_alone, subject, svm
from ali_fast.model import ALI
from ali_fast.pixels import to_x
from ali_fast.run_directory import RunDirectory
from data_prep.split import Sample, Split
from data_prep.writer import write_splits


def make_run(path, data, classes=None, y_dim=None, **options):
    directory = RunDirectory(path)
    config = TrainConfig(dataset="digits", run_dir=path, data_dir=data, **options).resolved()
    with directory.locked():
        directory.adopt(config)
    preset = presets.resolve("digits")
    model = ALI(preset.architecture, kernels.resolve("eager", "cpu"), config.objective, classes=classes, y_dim=y_dim)
    generator = torch.Generator().manual_seed(0)
    model.load_state_dict({k: torch.rand(t.shape, generator=generator) * 0.3 for k, t in model.state_dict().items()})
    conditions = {"image_shape": [8, 8, 1], "classes": classes}
    if y_dim is not None:
        conditions["condition"] = {"kind": "classes", "names": list(map(str, range(y_dim)))}
        centred = {k: t if "running_var" in k else t - 0.15 for k, t in model.state_dict().items()}
        model.load_state_dict(centred)  # else every pixel is white, whatever it is told
    state = {"step": {"model": model.state_dict(), "steps": 12}, "conditions": conditions, "seconds": 1.0}
    checkpoint.save(directory.checkpoints, 12, state, keep=3)
    return path


@pytest.fixture
def run(tmp_path, data):
    return make_run(tmp_path / "run", data)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(classifier, "LEAST_STEPS", 30)
    monkeypatch.setattr(classifier, "EPOCHS", 2)
    monkeypatch.setattr(svm, "GRID", np.exp([-6.0, -3.0, 0.0]))


def evaluate(run, *arguments):
    return cli.main(["evaluate", str(run), "--device", "cpu", *map(str, arguments)])


def test_svm_beside_what_it_has_to_beat(run, tmp_path, capsys):
    arguments = ["--task", "svm", "--labels", 50, "--draws", 2, "--jobs", 1]
    assert evaluate(run, *arguments, "--json", tmp_path / "svm.json") == 0
    printed = capsys.readouterr().out
    assert "digits, run at step 12: 50 labels (5 a class), mean +- std of 2 draws" in printed
    assert "19.14 +- 0.50" in printed
    result = json.loads((tmp_path / "svm.json").read_text())
    assert result == json.loads((run / "evaluation" / "svm.json").read_text())
    rows = {row["features"]: row for row in result["numbers"]["features"]}
    assert list(rows) == ["the run's encoder", "the same encoder, untrained", "raw pixels", "PCA, 99 % of the variance"]
    assert rows["raw pixels"]["dimensions"] == 64
    for row in rows.values():
        assert len(row["test_errors"]) == 2
        assert row["mean"] == pytest.approx(np.mean(row["test_errors"]))
        assert row["std"] == pytest.approx(np.std(row["test_errors"], ddof=1))
        assert row["c"] in svm.GRID
    assert 0.05 < rows["raw pixels"]["mean"] < 0.4  # 50 labels of the digits


def test_distances_and_reconstruction_share_one_kept_classifier(run, data, capsys):
    kept = data / "digits" / "classifier.pt"
    kept.unlink(missing_ok=True)
    assert evaluate(run, "--task", "frechet", "--samples", 100) == 0
    assert "training a classifier of digits" in capsys.readouterr().err
    written = kept.stat().st_mtime_ns
    assert evaluate(run, "--task", "reconstruction") == 0
    assert "training a classifier" not in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == written
    sets = {s["set"]: s for s in json.loads((run / "evaluation" / "frechet.json").read_text())["numbers"]["sets"]}
    real, made = sets["training images (100)"], sets["samples"]
    assert real["frechet"] < made["frechet"]
    assert real["precision"] > 0.5 > made["precision"]
    result = json.loads((run / "evaluation" / "reconstruction.json").read_text())["numbers"]
    ours, others = result["sets"]
    assert ours["features"] > 0
    assert others["labels_kept"] < 0.3 < result["classifier_accuracy"]
    assert result["count"] == 300
    assert 0.5 < result["classifier_accuracy"] <= 1


def test_classes_beside_labels_alone(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setattr(labels_alone, "STEPS", 6)
    monkeypatch.setattr(labels_alone, "LOOKS", 2)
    run = make_run(tmp_path / "semi", data, classes=10, objective="semi-supervised", labels=40)
    assert evaluate(run, "--task", "classes") == 0
    printed = capsys.readouterr().out
    assert "digits, 40 labels" in printed
    assert "7.42 +- 0.65" in printed
    assert "17.05 +- 1.49" in printed
    numbers = json.loads((run / "evaluation" / "classes.json").read_text())["numbers"]
    test = BetonLoader(beton_path(data, "digits", "test"), batch_size=1).read_all()
    ali = ali_fast.load(run)
    x = to_x(test.images, 8)
    with torch.no_grad():
        logits = ali.model.discriminator(x, ali.model.infer(x)[0])
    assert logits.shape == (300, 10)
    assert numbers["test_error"] == pytest.approx((logits.argmax(1) != test.labels).double().mean().item())
    assert 0 < numbers["labels_alone"]["test_error"] <= 1
    assert numbers["labels_alone_last"]["step"] == 6
    assert evaluate(run, "--task", "svm", "--labels", 20, "--draws", 1, "--jobs", 1) == 0
    printed = capsys.readouterr().out
    assert "the run's encoder has learned from 40 labels of its own" in printed
    ours = next(line for line in printed.splitlines() if line.startswith("the run's encoder"))
    assert "+-" not in ours  # of one draw


@pytest.fixture
def conditional(tmp_path, data):
    return make_run(tmp_path / "conditional", data, y_dim=10, objective="conditional")


def test_condition_of_weights_that_learned_none(conditional, data, capsys):
    assert evaluate(conditional, "--task", "condition", "--samples", 200) == 0
    printed = capsys.readouterr().out
    numbers = json.loads((conditional / "evaluation" / "condition.json").read_text())["numbers"]
    assert f"classifier of real images with {100 * numbers['classifier_accuracy']:.2f} % test accuracy" in printed
    ours, others, real = numbers["sets"]
    assert ours["all"] < 0.3
    assert others["all"] < 0.3
    assert real["all"] == pytest.approx(numbers["classifier_accuracy"])
    test = BetonLoader(beton_path(data, "digits", "test"), batch_size=1).read_all()
    shares = np.bincount(test.labels) / len(test.labels)
    assert sum(share * each for share, each in zip(shares, real["each"], strict=True)) == pytest.approx(real["all"])
    assert len(printed.splitlines()) >= 3 + 1 + 10


def test_a_conditional_run_is_told_the_labels_of_test_images(conditional, data):
    assert evaluate(conditional, "--task", "reconstruction") == 0
    found = json.loads((conditional / "evaluation" / "reconstruction.json").read_text())["numbers"]["sets"][0]["pixels"]
    test = BetonLoader(beton_path(data, "digits", "test"), batch_size=1).read_all()
    ali = ali_fast.load(conditional)
    assert found == pytest.approx(ali.reconstruction_error(test.images, test.labels))
    assert found != pytest.approx(ali.reconstruction_error(test.images, (test.labels + 1) % 10))
    told = json.loads((conditional / "evaluation" / "reconstruction.json").read_text())["numbers"]["sets"][1]
    made = ali.sample(300, 0, test.labels).double() / 255
    assert told["set"] == "samples of its y"
    assert told["pixels"] == pytest.approx(float((made - test.images.double() / 255).square().mean()))
    assert evaluate(conditional, "--task", "frechet", "--samples", 50) == 0
    sets = json.loads((conditional / "evaluation" / "frechet.json").read_text())["numbers"]["sets"]
    assert [s["set"] for s in sets] == ["samples", "training images (50)", "reconstructions"]


def test_an_svm_would_find_what_a_conditional_encoder_was_told(conditional, capsys):
    assert evaluate(conditional, "--task", "svm", "--labels", 50) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a conditional encoder is told what the SVM is to find; evaluate it by --task condition" in err


def make_set(data, name, splits, classes=(), tests=120):
    def read(i):
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 1), dtype=np.uint8)
        return Sample(image, i % len(classes) if classes else None)

    def made(count):
        return Split(count, (8, 8, 1), read, tuple(classes), (), {"arrays": "0" * 64})

    counts = {"test": tests}
    write_splits({beton_path(data, name, split): made(counts.get(split, 120)) for split in splits})


def of_folder(run, data):
    """The run, as if it had been trained on a folder in `data`."""
    changed = dataclasses.replace(RunDirectory(run).read_config(), dataset="folder", data_dir=data)
    (run / "config.json").write_text(config.to_json(changed))


ALL = ("train", "valid", "test")


@pytest.mark.parametrize(
    ("splits", "classes", "task", "more", "message"),
    [
        (ALL, "", "svm", [], "folder has no class labels"),
        (ALL, "", "frechet", [], "folder has neither classes nor attributes"),
        (ALL, "", "reconstruction", [], "folder has neither classes nor attributes"),
        (ALL[:2], "ab", "svm", [], "folder has no test split"),
        (ALL[:2], "ab", "frechet", [], "folder has no test split"),
        (ALL[:2], "ab", "reconstruction", [], "folder has no test split"),
        (ALL, "ab", "svm", ["--labels", 200], "class 'a' has 60 labelled images; take at most 120"),
        (ALL, "abc", "svm", ["--labels", 100], "must be a multiple of the 3 classes, such as 99"),
        (ALL, "ab", "classes", [], "this is a run of ali; evaluate one of semi-supervised"),
        (ALL, "ab", "condition", [], "this is a run of ali; evaluate one of conditional"),
        (ALL, "ab", "svm", ["--draws", 0], "--draws 0: must be at least 1"),
        (ALL, "ab", "svm", ["--inception-weights", "w.pth"], "--inception-weights is for --task frechet"),
        (ALL, "ab", "classes", ["--labels", 4000], "--labels is for --task svm"),
        (ALL, "ab", "reconstruction", ["--samples", 50], "--samples is for --task frechet and condition"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line_and_exit_code_2(
    run, tmp_path, capsys, splits, classes, task, more, message
):
    make_set(tmp_path / "own", "folder", splits, classes)
    of_folder(run, tmp_path / "own")
    assert evaluate(run, "--task", task, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize("tests", [1, 2, 3])
def test_a_handful_of_test_images(run, tmp_path, capsys, tests):
    make_set(tmp_path / "own", "folder", ALL, "ab", tests)
    of_folder(run, tmp_path / "own")
    assert evaluate(run, "--task", "frechet") == 2
    assert f"has {tests} test images, and precision and recall compare each with its 3" in capsys.readouterr().err
    assert evaluate(run, "--task", "reconstruction") == 0
    sets = json.loads((run / "evaluation" / "reconstruction.json").read_text())["numbers"]["sets"]
    assert [s["set"] for s in sets] == ["reconstructions", "another test image"][:tests]
    assert all(s["pixels"] > 0 for s in sets)


def test_four_test_images_are_enough(run, tmp_path):
    make_set(tmp_path / "own", "folder", ALL, "ab", 4)
    of_folder(run, tmp_path / "own")
    assert evaluate(run, "--task", "frechet") == 0


def test_a_directory_that_is_no_run_is_named(tmp_path, run, capsys):
    assert evaluate(tmp_path / "absent") == 2
    shutil.rmtree(run / "checkpoints")
    assert evaluate(run) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_without_labels_there_are_inceptions_distances(run, tmp_path, capsys, monkeypatch):
    asked = []

    def measure(images, real, weights, cuda):
        asked.append((len(images), len(real), weights.name, cuda))
        return {"fid": 1.5, "kid": 0.002, "kid_std": 0.001}

    monkeypatch.setattr(inception, "measure", measure)
    monkeypatch.setattr(inception, "load_library", lambda weights: None)
    monkeypatch.setattr(inception, "describe", lambda weights: weights.name)
    make_set(tmp_path / "own", "folder", ALL)
    of_folder(run, tmp_path / "own")
    assert evaluate(run, "--task", "frechet", "--inception-weights", "w.pth") == 0
    assert asked == [(120, 120, "w.pth", False)] * 3
    assert "1.50" in capsys.readouterr().out
    kept = json.loads((run / "evaluation" / "frechet.json").read_text())
    assert kept["numbers"]["classifier_accuracy"] is None
    assert kept["numbers"]["sets"][0] == {"set": "samples", "fid": 1.5, "kid": 0.002, "kid_std": 0.001}


def test_a_classifier_that_cannot_be_kept_serves_all_the_same(run, tmp_path, data, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(classifier, "_save", fail)
    monkeypatch.setattr(classifier, "_restore", lambda *_: None)
    assert evaluate(run, "--task", "reconstruction") == 0
    assert "cannot be kept (Read-only file system)" in capsys.readouterr().err


def test_a_full_disk_under_the_classifier_is_said_and_leaves_nothing(run, data, capsys, monkeypatch):
    """torch's writer of zips raises another error than the disk's."""
    kept = data / "digits" / "classifier.pt"
    kept.unlink(missing_ok=True)
    before = sorted(kept.parent.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ours = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert evaluate(run, "--task", "reconstruction") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ours)
    assert "the classifier cannot be kept (File too large)" in " ".join(capsys.readouterr().err.split())
    assert sorted(kept.parent.iterdir()) == before


def test_data_are_looked_for_where_they_are_said_to_be_and_the_step_is_the_weights_own(run, data, tmp_path):
    moved, asked = shutil.copytree(data, tmp_path / "moved"), []
    opened = subject.open_subject(run, lambda config: asked.append(config.data_dir), "cpu", moved)
    assert (asked, opened.config.data_dir, opened.step) == ([moved], moved, 12)
    assert subject.open_subject(run, lambda _: None, "cpu").config.data_dir == data


@pytest.mark.parametrize("command", [["evaluate", "--task", "reconstruction"], ["reconstruct"], ["interpolate"]])
def test_a_runs_data_may_have_been_moved(run, data, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    gone = dataclasses.replace(RunDirectory(run).read_config(), data_dir=tmp_path / "gone")
    (run / "config.json").write_text(config.to_json(gone))
    assert cli.main([command[0], str(run), *command[1:], "--data-dir", str(data)]) == 0
    assert not (tmp_path / "gone").exists()


def test_a_negative_seed_is_the_users_to_know(run, capsys):
    assert evaluate(run, "--task", "svm", "--seed", -1) == 2
    assert "--seed -1: must be from 0 to 2^63 - 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["evaluate", "--task", "reconstruction"], ["reconstruct"], ["interpolate"]])
def test_other_images_than_the_run_was_trained_on_are_refused(run, data, tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    sha256 = read_manifest(beton_path(data, "digits", "train")).sha256
    directory = RunDirectory(run)
    for step, (trained_on, code) in enumerate(((sha256[:16], 0), ("0" * 16, 2))):
        _, state = checkpoint.read_newest(directory.checkpoints, warn=pytest.fail)
        state["conditions"]["train_sha256"] = trained_on
        checkpoint.save(directory.checkpoints, 13 + step, state, keep=1)
        assert cli.main([command[0], str(run), *command[1:]]) == code
    assert "train.beton holds other images than the run was trained on" in capsys.readouterr().err


def test_what_would_fail_after_the_work_fails_before_it(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "of_data_set", lambda *_: pytest.fail("the work has begun"))
    assert evaluate(run, "--task", "frechet", "--inception-weights", str(tmp_path / "absent.pth")) == 2
    assert capsys.readouterr().err.startswith("ali-fast: --inception-weights ")
    (run / "evaluation").write_text("")
    assert evaluate(run, "--task", "reconstruction") == 2
    assert capsys.readouterr().err.startswith("ali-fast: Not a directory: ")


def split_of(data, name):
    return BetonLoader(beton_path(data, "digits", name), batch_size=1).read_all()


def test_svm_trains_chooses_and_measures_each_on_its_own_images(run, data, monkeypatch):
    asked = []

    def protocol(*sets, **_):
        asked.append(sets)
        return svm.Scores(1.0, 0.0, [0.0, 0.0])

    monkeypatch.setattr(svm, "protocol", protocol)
    assert evaluate(run, "--task", "svm", "--labels", 50, "--draws", 2) == 0
    train, valid, test = (split_of(data, name) for name in ("train", "valid", "test"))
    encoder = features.encoder_features(ali_fast.load(run).model)
    principal = features.principal_components(train.images.numpy())
    for (pool, draws, held_out, tested), represent in zip(
        [asked[0], asked[2], asked[3]], (encoder, features.pixels, principal), strict=True
    ):
        for (found, labels), split in ((held_out, valid), (tested, test)):
            np.testing.assert_array_equal(labels, split.labels)
            np.testing.assert_allclose(found, represent(split.images.numpy()), rtol=1e-4, atol=1e-4)
        for rows, draw in zip(draws, balanced_draws(train.labels.numpy(), tuple("0123456789"), 50, 3, 0), strict=True):
            np.testing.assert_array_equal(pool[1][rows], train.labels[draw])
            np.testing.assert_allclose(pool[0][rows], represent(train.images[draw].numpy()), rtol=1e-4, atol=1e-4)
    assert not np.allclose(asked[0][3][0], asked[1][3][0])  # the untrained encoder's


def as_features(self, images):
    return images.reshape(len(images), -1).astype(np.float64)


def test_distances_are_of_the_sets_they_name(run, data, monkeypatch):
    seen = []

    def precision_recall(real, found):
        seen.append((real, found))
        return distances.PrecisionRecall(0.0, 0.0)

    monkeypatch.setattr(classifier.Classifier, "features", as_features)
    monkeypatch.setattr(distances, "precision_recall", precision_recall)
    assert evaluate(run, "--task", "frechet", "--samples", 50, "--seed", 3) == 0
    ali, test, train = ali_fast.load(run), split_of(data, "test"), split_of(data, "train")
    drawn = Order(len(train.images), 1, 3).epoch(0)[:50]  # by seed: in the file, classes may stand together
    assert not np.array_equal(drawn, np.arange(50))
    made = [ali.sample(50, 3), train.images[drawn], ali.reconstruct(test.images[:50])]
    for (real, found), images in zip(seen, made, strict=True):
        np.testing.assert_array_equal(real, as_features(None, test.images[:50].numpy()))
        np.testing.assert_array_equal(found, as_features(None, images.numpy()))
    assert distances.NEIGHBOURS == 3  # the paper's k


def test_reconstruction_errors_are_means_of_pixels_and_sums_of_features(run, data, monkeypatch):
    monkeypatch.setattr(classifier.Classifier, "features", as_features)
    assert evaluate(run, "--task", "reconstruction") == 0
    found = json.loads((run / "evaluation" / "reconstruction.json").read_text())["numbers"]["sets"]
    assert found[0]["pixels"] == pytest.approx(ali_fast.load(run).reconstruction_error(split_of(data, "test").images))
    for row in found:
        assert row["features"] == pytest.approx(row["pixels"] * 64 * 255**2)


def test_a_kept_classifier_is_the_one_that_was_trained(run, data):
    (data / "digits" / "classifier.pt").unlink(missing_ok=True)
    opened = subject.open_subject(run, lambda config: None, "cpu")
    test = opened.test("frechet")
    new, kept = (classifier.of_data_set(opened, test, Console(file=io.StringIO())) for _ in range(2))
    np.testing.assert_array_equal(new.features(test.images[:7]), kept.features(test.images[:7]))


def test_labels_alone_are_the_labels_of_the_run(tmp_path, data, monkeypatch):
    seen = []

    def train(like, *sets, **_):
        seen.extend(sets)
        return (labels_alone.Alone(0, 1.0, 1.0),) * 2

    monkeypatch.setattr(labels_alone, "train", train)
    run = make_run(tmp_path / "semi", data, classes=10, objective="semi-supervised", labels=40, seed=6)
    assert evaluate(run, "--task", "classes") == 0
    loader = BetonLoader(beton_path(data, "digits", "train"), batch_size=1)
    of_run = labelled_subset(loader, 40, 1297, 6, torch.device("cpu"))
    assert torch.equal(seen[0].images, of_run.images) and torch.equal(seen[0].labels, of_run.labels)
    np.testing.assert_array_equal(seen[1].labels, split_of(data, "valid").labels)
    np.testing.assert_array_equal(seen[2].labels, split_of(data, "test").labels)


def test_what_others_were_asked_is_a_control(tmp_path, data, monkeypatch):
    run = make_run(tmp_path / "conditional", data, y_dim=10, objective="conditional")
    monkeypatch.setattr(classifier.Classifier, "logits", lambda self, images: np.eye(10)[np.arange(len(images)) % 10])
    assert evaluate(run, "--task", "condition", "--samples", 200) == 0
    ours, others, _ = json.loads((run / "evaluation" / "condition.json").read_text())["numbers"]["sets"]
    assert ours["all"] == 1
    assert others["all"] < 0.3
