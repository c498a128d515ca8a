"""What a user can get wrong, through the command line: exit code 2 and one line that says what to do."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import published
import pytest
from PIL import Image

from ali_fast import cli
from ali_fast.data.schema import beton_path, manifest_path
from data_prep import cifar10, download, svhn


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs `ali-fast ARGUMENTS --data-dir TMP/data`, which has to be refused by one line with all of `parts` in it."""

    def refused(*arguments: object, parts: tuple[str, ...]) -> None:
        capsys.readouterr()
        code = cli.main([*map(str, arguments), "--data-dir", str(tmp_path / "data")])
        out, err = capsys.readouterr()
        assert code == 2, (out, err)
        assert err.count("\n") == 1, err
        for part in parts:
            assert part in err

    return refused


def pictures(folder: Path, count: int) -> Path:
    image = published.encode(Image.new("RGB", (9, 9)), "PNG")
    return published.put(folder, {f"{number}.png": image for number in range(count)})


def test_missing_sources(refused, tmp_path):
    refused("prepare", "cifar11", parts=("there is no data set 'cifar11'", "cifar10, svhn"))
    refused("prepare", "cifar10", "--source", "nowhere", parts=("--source nowhere: there is no such file",))
    (tmp_path / "empty").mkdir()
    for dataset in ("cifar10", "svhn", "celeba", "imagenet64", "fashion-mnist"):
        refused("prepare", dataset, "--source", tmp_path / "empty", parts=(str(tmp_path / "empty"),))
    for dataset in ("celeba", "imagenet64", "folder"):
        refused("prepare", dataset, parts=("--source",))
    refused("train", "--dataset", "celeba", parts=("CelebA has no address", "--source"))
    refused(
        "train",
        "--dataset",
        "folder",
        "--preset",
        "digits",
        parts=("make it with: ali-fast prepare folder --source FOLDER --preset digits",),
    )


def test_wrong_counts_shapes_labels_and_digests(refused, tmp_path, monkeypatch):
    files, *_ = published.cifar10(3)
    source = published.put(tmp_path / "short", files)
    refused("prepare", "cifar10", "--source", source, parts=("data_batch_1.bin: 9219 bytes, 10000 records of 3073",))
    monkeypatch.setattr(cifar10, "FILE_RECORDS", 3)
    wrong = bytearray(files["test_batch.bin"])
    wrong[3073] = 10
    source = published.put(tmp_path / "labels", files | {"test_batch.bin": bytes(wrong)})
    refused("prepare", "cifar10", "--source", source, parts=("test_batch.bin, image 1: label 10, should be 0 to 9",))
    archive = b"?" * cifar10.ARCHIVE.size
    source = published.put(tmp_path / "digest", {cifar10.ARCHIVE.name: archive})
    refused("prepare", "cifar10", "--source", source, parts=(cifar10.ARCHIVE.name, "damaged: sha256"))
    monkeypatch.setattr(svhn, "COUNTS", {"train": 3, "test": 3, "extra": 3})
    monkeypatch.setattr(download, "verify", lambda file, path: None)
    mats = {file.name: published.svhn(4)[0] for file in svhn.FILES.values()}
    source = published.put(tmp_path / "shape", mats)
    refused("prepare", "svhn", "--source", source, parts=("train_32x32.mat: X is [32, 32, 3, 4], should be",))
    assert not list(tmp_path.glob("data/*/*.beton*"))


def test_no_network(refused, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # keeps the proxies of its first use
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("usage", (), {"free": 1 << 40}))
    monkeypatch.setattr("data_prep.fashion_mnist.DEBIAN", Path("nowhere"))
    for dataset in ("cifar10", "svhn", "fashion-mnist"):
        refused("prepare", dataset, parts=("cannot download http", "no connection", "give its path with --source"))


def test_folders_that_will_not_do(refused, tmp_path):
    empty, few = pictures(tmp_path / "empty", 0), pictures(tmp_path / "few", 2)
    empty.mkdir(exist_ok=True)
    refused("prepare", "folder", "--preset", "cifar10", "--source", empty, parts=("not one image in it",))
    refused(
        "prepare",
        "folder",
        "--preset",
        "cifar10",
        "--source",
        few,
        parts=("too few images (2): one each to train on",),
    )
    refused("prepare", "folder", "--source", few, parts=("folder needs --preset",))
    refused("prepare", "digits", "--preset", "digits", parts=("--preset digits: only of a folder",))
    refused("prepare", "digits", "--seed", "1", parts=("--seed 1: only of a folder",))


def test_a_folder_smaller_than_the_presets_batch(refused, tmp_path):
    source = pictures(tmp_path / "s", 110)
    arguments = ["prepare", "folder", "--source", str(source), "--data-dir", str(tmp_path / "data")]
    assert cli.main([*arguments, "--preset", "digits"]) == 0
    train = ("train", "--dataset", "folder", "--preset", "digits", "--run-dir", tmp_path / "run")
    refused(*train, parts=("--batch-size 100: larger than the set, which has 88 samples; take at most 88",))


def test_a_folder_of_another_preset(refused, tmp_path):
    source, data = pictures(tmp_path / "s", 130), tmp_path / "data"
    arguments = ["prepare", "folder", "--source", str(source), "--data-dir", str(data)]
    assert cli.main([*arguments, "--preset", "digits"]) == 0
    assert json.loads(manifest_path(beton_path(data, "folder", "train")).read_text())["shape"] == [8, 8, 1]
    mend = "ali-fast prepare folder --force --source FOLDER --preset cifar10"
    refused("train", "--dataset", "folder", "--preset", "cifar10", parts=("8x8x1", "32x32x3", mend))
    refused("prepare", "folder", "--preset", "cifar10", parts=("was prepared with size 8, not 32", mend))
    assert cli.main(["prepare", "folder", "--seed", "0", "--data-dir", str(data)]) == 0  # the default, said
    own = f"--force --source {source} --preset PRESET --seed 3"
    refused("prepare", "folder", "--source", str(source), "--seed", "3", parts=("with seed 0, not 3", own))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    assert cli.main(["prepare", "digits", "--data-dir", str(folder)]) == 0
    return {path.name: path.read_bytes() for path in (folder / "digits").iterdir() if path.suffix != ".lock"}


def test_damaged_files_of_train_and_prepare(refused, prepared, tmp_path):
    whole = json.loads(prepared["train.json"])
    damage = {
        "train.beton": {
            "cut short": prepared["train.beton"][:-1000],
            "its writer did not finish it": prepared["train.beton"][:16] + bytes(8) + prepared["train.beton"][24:],
        },
        "train.json": {
            "manifest version 7, this program reads 1": json.dumps(whole | {"version": 7}).encode(),
            "is of another data set: 'cifar10', not 'digits'": json.dumps(whole | {"dataset": "cifar10"}).encode(),
            "not JSON": b"{",
        },
    }
    for name, cases in damage.items():
        for fault, data in cases.items():
            published.put(tmp_path / "data" / "digits", prepared | {name: data})
            mend = f"mend it with: ali-fast prepare digits --force --data-dir {tmp_path / 'data'}"
            for command in (("train", "--dataset", "digits"), ("prepare", "digits"), ("prepare", "digits", "--check")):
                refused(*command, parts=(str(tmp_path / "data" / "digits" / name), fault, mend))
            assert (tmp_path / "data" / "digits" / name).read_bytes() == data


def test_a_wrong_pixel_is_found_by_check_and_verify(refused, prepared, tmp_path):
    wrong = bytearray(prepared["train.beton"])
    wrong[60_000] ^= 1
    published.put(tmp_path / "data" / "digits", prepared | {"train.beton": bytes(wrong)})
    fault = ("train.beton: its content does not match the sha256", "ali-fast prepare digits --force")
    refused("prepare", "digits", "--check", parts=fault)
    refused("train", "--dataset", "digits", "--verify", "--run-dir", tmp_path / "run", parts=fault)
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_is_refused_before_anything_heavy_is_imported(prepared, tmp_path):
    """Modules are counted, not seconds: a busy machine's imports take as long as they please."""
    published.put(tmp_path / "digits", prepared | {"train.beton": b""})
    heavy = "{'torch', 'ffcv', 'numba', 'scipy', 'PIL', 'rich.progress'}"
    code = "import sys\nfrom ali_fast.cli import main\ncode = main(sys.argv[1:])\n"
    code += f"print(*sorted({heavy} & set(sys.modules)), len(sys.modules))\nsys.exit(code)"
    for command in (["train", "--dataset", "digits"], ["prepare", "digits"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2
        assert re.fullmatch(r"ali-fast: .*train\.beton: cut short.*--force.*\n", done.stderr)
        assert int(done.stdout) < 500  # 400 with numpy's, which are 170; torch alone has 1,100


def test_a_data_dir_one_may_not_write_to(refused, tmp_path):
    (tmp_path / "data").write_bytes(b"")
    refused("prepare", "digits", parts=("cannot", os.fspath(tmp_path / "data")))
