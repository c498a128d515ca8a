import dataclasses

import pytest

from ali_fast import presets
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.evaluate.subject import Subject
from ali_fast.run_directory import RunDirectory


@pytest.mark.parametrize(
    ("test_split", "task", "message"),
    [
        ("valid", "svm", "digits has no images to measure on but those that settings are chosen on"),
        ("valid", "classes", "digits has no images to measure on but those that settings are chosen on"),
        ("valid", "frechet", "digits has no test split in"),  # it chooses nothing, and looks for the images
        ("test", "svm", "digits has no test split in"),
    ],
)
def test_nothing_is_measured_on_images_that_its_settings_are_chosen_on(tmp_path, test_split, task, message):
    preset = dataclasses.replace(presets.resolve("digits"), valid_split="valid", test_split=test_split)
    config = TrainConfig(dataset="digits", run_dir=tmp_path, data_dir=tmp_path / "data").resolved()
    subject = Subject(RunDirectory(tmp_path), config, preset, inference=None, step=0)
    with pytest.raises(InputError, match=f"--task {task}: {message}"):
        subject.test(task)
