"""prepare(): what is there is kept, damage is never rebuilt unasked, and two at once or a run beside it are safe."""

import contextlib
import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

import data_prep
from ali_fast.data.beton import Beton
from ali_fast.data.schema import DamagedError, NotPreparedError, beton_path, manifest_path
from ali_fast.errors import InputError
from data_prep import prepare

SPLITS = ("train", "valid", "test")


def folder(tmp_path) -> Path:
    return tmp_path / "digits"


def state(tmp_path):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder(tmp_path).iterdir()}


def test_what_is_there_is_kept(tmp_path):
    first = prepare("digits", data_dir=tmp_path)
    before = state(tmp_path)
    assert prepare("digits", data_dir=tmp_path) == first
    assert state(tmp_path) == before


def test_force_makes_it_anew_and_the_bytes_are_the_same(tmp_path):
    first = prepare("digits", data_dir=tmp_path)
    before = state(tmp_path)
    assert prepare("digits", data_dir=tmp_path, force=True) == first
    assert all(state(tmp_path)[f"{split}.beton"] != before[f"{split}.beton"] for split in SPLITS)


@pytest.mark.parametrize("name", ["valid.beton", "valid.json"])
def test_only_what_is_missing_is_made(tmp_path, name):
    prepare("digits", data_dir=tmp_path)
    (folder(tmp_path) / name).unlink()
    (folder(tmp_path) / "test.beton.part").write_text("left by a kill")
    before = state(tmp_path)
    prepare("digits", data_dir=tmp_path)
    after = state(tmp_path)
    assert after["train.beton"] == before["train.beton"]
    Beton(folder(tmp_path) / "valid.beton").verify()
    assert not [name for name in after if name.endswith(".part")]


def test_damage_is_said_and_not_mended_unasked(tmp_path):
    prepare("digits", data_dir=tmp_path)
    path = folder(tmp_path) / "train.beton"
    os.truncate(path, 1000)
    (folder(tmp_path) / "valid.json").unlink()  # to be made, but not beside a damaged one
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"train\.beton: cut short.*ali-fast prepare digits --force"):
            prepare("digits", data_dir=tmp_path)
    assert path.stat().st_size == 1000
    prepare("digits", data_dir=tmp_path, force=True)
    assert [manifest.count for manifest in prepare("digits", data_dir=tmp_path, check=True)] == [1297, 200, 300]


def test_check_finds_one_wrong_pixel_and_makes_nothing(tmp_path):
    with pytest.raises(NotPreparedError):
        prepare("digits", data_dir=tmp_path, check=True)
    assert not folder(tmp_path).exists()
    prepare("digits", data_dir=tmp_path)
    path = folder(tmp_path) / "test.beton"
    raw = bytearray(path.read_bytes())
    raw[20_000] ^= 1
    path.write_bytes(raw)
    prepare("digits", data_dir=tmp_path)
    with pytest.raises(DamagedError, match=r"test\.beton: its content does not match the sha256"):
        prepare("digits", data_dir=tmp_path, check=True)


def test_check_is_of_what_was_asked_for(tmp_path):
    made = prepare("folder", source=bitmaps(tmp_path / "a", 0), data_dir=tmp_path, size=8, seed=3)
    assert prepare("folder", source=tmp_path / "a", data_dir=tmp_path, check=True) == made
    anew = "make all anew with: ali-fast prepare folder --force --source FOLDER --preset PRESET --seed"
    with pytest.raises(InputError, match=f"with seed 3, not 4; {anew} 4"):
        prepare("folder", data_dir=tmp_path, check=True, seed=4)
    with pytest.raises(InputError, match=f"from other files than these; {anew} 3"):
        prepare("folder", source=bitmaps(tmp_path / "b", 1), data_dir=tmp_path, check=True)
    with pytest.raises(InputError, match="give one of them"):
        prepare("folder", data_dir=tmp_path, check=True, force=True)


def test_unknown_data_set_and_missing_source(tmp_path):
    with pytest.raises(InputError, match="there is no data set 'mnist'; there are: digits, fashion-mnist"):
        prepare("mnist", data_dir=tmp_path)
    with pytest.raises(InputError, match="--source nowhere: there is no such file or folder"):
        prepare("digits", source=Path("nowhere"), data_dir=tmp_path)


def test_a_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*data/digits: .*; use another --data-dir"):
        prepare("digits", data_dir=tmp_path / "data")


def test_other_options_are_said(tmp_path, monkeypatch):
    module = type(sys)("data_prep.digits")
    module.open_source = lambda source, downloads, size=8: digits.open_source(source, downloads)
    digits = importlib.import_module("data_prep.digits")
    monkeypatch.setitem(sys.modules, "data_prep.digits", module)
    made = prepare("digits", data_dir=tmp_path, size=16, other=None)
    assert made[0].options == {"size": 16}
    assert prepare("digits", data_dir=tmp_path, size=16) == prepare("digits", data_dir=tmp_path) == made
    otherwise = r"train\.beton was prepared with size 16, not 32; make all anew with: ali-fast prepare digits --force"
    with pytest.raises(InputError, match=otherwise):
        prepare("digits", data_dir=tmp_path, size=32)
    (folder(tmp_path) / "test.json").unlink()  # what is made now has to fit what is there, said or not
    with pytest.raises(InputError, match=r"train\.beton was prepared with size 16, not by default"):
        prepare("digits", data_dir=tmp_path)
    prepare("digits", data_dir=tmp_path, size=16)


def test_a_missing_split_is_made_from_the_source_of_the_others(tmp_path):
    manifests = prepare("digits", data_dir=tmp_path)
    path = beton_path(tmp_path, "digits", "valid")
    other = dataclasses.replace(manifests[1], source_sha256={"digits": "0" * 64})
    manifest_path(path).write_text(other.to_json())
    manifest_path(beton_path(tmp_path, "digits", "train")).unlink()
    with pytest.raises(InputError, match=r"valid\.beton was prepared from other files than these; make all anew with"):
        prepare("digits", data_dir=tmp_path)


def test_a_folder_is_what_was_prepared_or_it_is_said(tmp_path):
    def images(name, count):
        for number in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
        return tmp_path / name

    options = {"size": 8}
    made = prepare("folder", source=images("a", 12), data_dir=tmp_path, **options)
    assert prepare("folder", source=tmp_path / "a", data_dir=tmp_path) == made
    assert prepare("folder", data_dir=tmp_path) == made
    with pytest.raises(InputError, match=r"from other files than these; make all anew with: .*--force --source FOLDER"):
        prepare("folder", source=images("b", 13), data_dir=tmp_path)
    other = prepare("folder", source=tmp_path / "b", data_dir=tmp_path, force=True, **options)
    assert [manifest.count for manifest in other] == [11, 1, 1]


def bitmaps(path, red):
    """Twelve images whose files' names and sizes say nothing of their pixels."""
    path.mkdir()
    for number in range(12):
        Image.new("RGB", (9, 9), (red, number, 0)).save(path / f"{number}.bmp")
    return path


def test_other_pixels_under_the_same_names_and_sizes_are_said(tmp_path):
    made = prepare("folder", source=bitmaps(tmp_path / "a", 1), data_dir=tmp_path, size=8)
    assert prepare("folder", source=bitmaps(tmp_path / "same", 1), data_dir=tmp_path) == made
    with pytest.raises(InputError, match=r"from other files than these; make all anew with: .*--force"):
        prepare("folder", source=bitmaps(tmp_path / "b", 2), data_dir=tmp_path)
    manifest_path(beton_path(tmp_path, "folder", "test")).unlink()  # no split is made beside those of other images
    with pytest.raises(InputError, match="from other files than these"):
        prepare("folder", source=tmp_path / "b", data_dir=tmp_path, size=8)


def test_a_set_from_before_contents_were_noted_is_read_but_not_taken_for_the_same(tmp_path):
    options = {"size": 8}
    before = []
    for manifest in prepare("folder", source=bitmaps(tmp_path / "a", 1), data_dir=tmp_path, **options):
        listing = {"listing": manifest.source_sha256["listing"]}
        before.append(dataclasses.replace(manifest, source_sha256=listing))
        manifest_path(beton_path(tmp_path, "folder", manifest.split)).write_text(before[-1].to_json())
    assert prepare("folder", data_dir=tmp_path) == prepare("folder", data_dir=tmp_path, check=True) == before
    unknown = "by a version that noted only names and sizes.*; these files' are the same, their contents may not be"
    with pytest.raises(InputError, match=unknown + ".*make all anew with: .*--force"):
        prepare("folder", source=tmp_path / "a", data_dir=tmp_path)
    (tmp_path / "a" / "3.bmp").write_bytes((tmp_path / "a" / "3.bmp").read_bytes() + b" ")
    with pytest.raises(InputError, match="from other files than these"):
        prepare("folder", source=tmp_path / "a", data_dir=tmp_path)


def test_waits_for_another_and_says_so(tmp_path, capsys):
    folder(tmp_path).mkdir()
    done = []
    with FileLock(folder(tmp_path) / ".lock"):
        thread = threading.Thread(target=lambda: done.append(prepare("digits", data_dir=tmp_path)))
        thread.start()
        thread.join(1)
        assert not done
    thread.join(120)
    assert done
    assert f"another process is preparing {folder(tmp_path)}; waiting for it" in capsys.readouterr().err


def program(tmp_path, *arguments):
    command = [sys.executable, "-m", "ali_fast", "prepare", "digits", "--data-dir", str(tmp_path), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_at_once(tmp_path):
    programs = [program(tmp_path), program(tmp_path, "--force")]
    for each in programs:
        out, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
        assert "digits train: 1,297 images" in out
    prepare("digits", data_dir=tmp_path, check=True)
    assert {path.suffix for path in folder(tmp_path).iterdir()} == {".beton", ".json", ""}


def test_killed_programs_leave_nothing_that_looks_finished(tmp_path):
    for sign in (signal.SIGKILL, signal.SIGTERM):
        for part in tmp_path.glob("digits/*.part"):  # the one before's
            part.unlink()
        killed = program(tmp_path, "--force")
        while killed.poll() is None and not list(tmp_path.glob("digits/*.part")):
            time.sleep(0.001)
        killed.send_signal(sign)
        killed.communicate(timeout=300)
        for split in SPLITS:
            with contextlib.suppress(NotPreparedError):
                Beton(folder(tmp_path) / f"{split}.beton").verify()
        prepare("digits", data_dir=tmp_path)  # does not wait for the lock of the dead
        prepare("digits", data_dir=tmp_path, check=True)


def test_a_folder_without_a_preset_is_told_the_whole_line(tmp_path):
    with pytest.raises(InputError) as error:
        prepare("folder", source=tmp_path, data_dir=tmp_path / "data")
    line = f"ali-fast prepare folder --source FOLDER --preset PRESET --data-dir {tmp_path / 'data'}"
    assert str(error.value).endswith(f"images are resized to what it takes: {line}")


@pytest.mark.parametrize("dataset", data_prep.DATASETS)
def test_every_data_set_has_its_module(dataset):
    module = __import__(f"data_prep.{dataset.replace('-', '_')}", fromlist=["open_source"])
    assert callable(module.open_source)
