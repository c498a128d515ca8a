import json
from pathlib import Path

import pytest

import data_prep
from ali_fast import presets
from ali_fast.config import TrainConfig, differences, from_json, to_json
from ali_fast.errors import InputError


def test_json_round_trip():
    places = {"data_dir": Path("/there"), "run_dir": Path("/run")}
    config = TrainConfig(dataset="digits", steps=7, amp=True, **places).resolved()
    assert from_json(to_json(config)) == config


def test_a_run_knows_its_places_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = to_json(TrainConfig(dataset="digits").resolved())
    monkeypatch.chdir("/")
    assert from_json(written).data_dir == tmp_path / "data"


def test_a_folders_run_is_not_in_the_place_of_the_presets_own():
    assert TrainConfig(dataset="folder", preset="cifar10").resolved().run_dir == Path("runs/folder-cifar10")


def test_the_preset_fills_what_was_not_given():
    config = TrainConfig(dataset="cifar10").resolved()
    assert (config.preset, config.epochs, config.steps, config.batch_size, config.learning_rate) == (
        "cifar10",
        6475,
        None,
        100,
        1e-4,
    )
    assert config.run_dir == Path("runs/cifar10")
    assert TrainConfig(dataset="cifar10", steps=5).resolved().epochs is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "cifar11"}, "cifar11"),
        ({"dataset": "digits", "preset": "svhn"}, "svhn"),
        ({"dataset": "folder"}, "--preset"),
        ({"dataset": "digits", "epochs": 1, "steps": 1}, "--epochs and --steps"),
        ({"dataset": "digits", "batch_size": 0}, "--batch-size 0"),
        ({"dataset": "digits", "learning_rate": float("nan")}, "--learning-rate nan"),
        ({"dataset": "digits", "keep": 0}, "--keep 0"),
        ({"dataset": "digits", "seed": -1}, "--seed -1"),
        ({"dataset": "digits", "ema": 1.0}, "--ema 1.0"),
        ({"dataset": "digits", "encoder": "none"}, "--encoder none"),
        ({"dataset": "digits", "encoder": "deterministic", "objective": "vae"}, "vae has no such encoder"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(InputError, match=words):
        TrainConfig(**options).resolved()


def test_every_preset_names_splits_that_are_prepared():
    for preset in presets.PRESETS:
        made = data_prep.DATASETS[preset.dataset]
        assert {preset.train_split, preset.valid_split, preset.test_split, preset.labelled_split} <= set(made)
        assert ("test" in made) == (preset.test_split == "test")
        of_folder = presets.resolve("folder", preset.name)
        splits = (of_folder.train_split, of_folder.valid_split, of_folder.test_split, of_folder.labelled_split)
        assert splits == ("train", "valid", "test", "train")
        assert of_folder.architecture == preset.architecture


def test_a_batch_of_one_is_refused():
    with pytest.raises(InputError, match="--batch-size 1: batch norm needs at least 2 images"):
        TrainConfig(dataset="digits", batch_size=1)


def test_unknown_data_sets_and_presets_list_the_good_ones():
    with pytest.raises(InputError, match=r"cifar10.*digits"):
        TrainConfig(dataset="mnist").resolved()
    with pytest.raises(InputError, match=r"one of cifar10, cifar10-code$"):
        TrainConfig(dataset="cifar10", preset="x").resolved()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "digits", "colour": 1}', '{"dataset": "d'])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(InputError):
        from_json(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_dir", 5),
        ("decoder_from", ["gan"]),
        ("dataset", None),
        ("seed", "0"),
        ("seed", True),
        ("steps", 1.5),
        ("learning_rate", "fast"),
        ("amp", 1),
        ("objective", {}),
        ("preset", []),
    ],
)
def test_a_value_of_another_type_is_named(name, value):
    values = json.loads(to_json(TrainConfig(dataset="digits"))) | {name: value}
    with pytest.raises(InputError, match=f"not a configuration: {name} is "):
        from_json(json.dumps(values))


def test_a_whole_number_is_a_number():
    values = json.loads(to_json(TrainConfig(dataset="digits"))) | {"minutes": 2}
    assert from_json(json.dumps(values)).minutes == 2


def test_one_place_spelled_in_two_ways_is_no_difference(tmp_path, monkeypatch):
    def of(path):
        return TrainConfig(dataset="digits", objective="inverse", decoder_from=path)

    (tmp_path / "gan").mkdir()
    (tmp_path / "link").symlink_to("gan")
    monkeypatch.chdir(tmp_path)
    spellings = [tmp_path / "gan", tmp_path / ".." / tmp_path.name / "gan", Path("gan"), tmp_path / "link"]
    for spelling in spellings:
        assert differences(of(spellings[0]), of(spelling)) == []
    assert differences(of(Path("gan")), of(Path("other"))) == ["decoder_from: gan -> other"]


def test_resume_allows_a_new_length_and_cadence_only():
    old = TrainConfig(dataset="digits", epochs=2).resolved()
    free = {"figure_ticks": 2, "keep": 9, "data": "resident"}
    longer = TrainConfig(dataset="digits", epochs=9, **free).resolved()
    assert differences(old, longer) == []
    assert differences(old, TrainConfig(dataset="digits", seed=3, amp=True, cuda_graphs=False).resolved()) == [
        "seed: 0 -> 3",
        "amp: False -> True",
        "cuda_graphs: True -> False",
    ]
