import dataclasses
import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import ali_fast
from ali_fast import api, checkpoint, cli, config, figures, kernels, presets
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.model import ALI
from ali_fast.players import PLAYERS
from ali_fast.run_directory import RunDirectory

PRESET = presets.resolve("digits")


def make_run(path, seed=0, step=7, encoder="stochastic"):
    """A run directory with one checkpoint of random weights, statistics included."""
    run = RunDirectory(path)
    with run.locked():
        run.adopt(TrainConfig(dataset="digits", run_dir=path, encoder=encoder).resolved())
    model = ALI(PRESET.architecture, kernels.resolve("eager", "cpu"), deterministic=encoder == "deterministic")
    generator = torch.Generator().manual_seed(seed)
    weights = {k: torch.rand(t.shape, generator=generator) * 0.3 for k, t in model.state_dict().items()}
    model.load_state_dict(weights)
    states = {"model": model.state_dict(), "steps": step}
    state = {"step": states, "conditions": {"image_shape": [8, 8, 1]}, "seconds": 1.0}
    checkpoint.save(run.checkpoints, step, state, keep=3)
    return path, model


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")[0]


def test_import_is_light():
    code = "import sys, ali_fast; assert 'torch' not in sys.modules; ali_fast.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_load_has_the_checkpoints_weights(tmp_path):
    path, model = make_run(tmp_path / "run")
    ali = ali_fast.load(path)
    assert not ali.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(ali.model.state_dict()[name], tensor)
    z = torch.linspace(-1, 1, 2 * PRESET.architecture.z_dim).view(2, -1)
    with torch.no_grad():
        expected = (model.eval().decoder(z[:, :, None, None]) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(ali.decode(z), expected)


def test_round_trip_through_an_export(run):
    exported = api.export(run)
    ali, again = ali_fast.load(run), ali_fast.load(str(exported))
    assert torch.equal(ali.sample(16, seed=3), again.sample(16, seed=3))
    images = ali.sample(4)
    assert torch.equal(ali.encode(images).mu, again.encode(images).mu)


def forward(layers, weights, eps, h):
    """A network of an export in torch's own operations, from what its files say."""
    for i, layer in enumerate(layers):
        product = F.conv_transpose2d if layer["operation"] == "transposed convolution" else F.conv2d
        bias = weights.get(f"products.{i}.bias")
        h = product(h, weights[f"products.{i}.weight"], bias, layer["strides"])
        norm = {name.split(".")[-1]: t for name, t in weights.items() if name.startswith(f"activations.{i}.")}
        if layer["batch_norm"]:
            h = F.batch_norm(h, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"], False, 0, eps)
        elif layer["bias"] == "untied":
            h = h + norm["bias"]
        if layer["nonlinearity"] == "leaky_relu":
            h = F.leaky_relu(h, layer["slope"])
        elif layer["nonlinearity"] == "sigmoid":
            h = h.sigmoid()
        else:
            assert layer["nonlinearity"] == "linear"
    return h


@pytest.mark.parametrize("encoder", ["stochastic", "deterministic"])
def test_an_export_says_all_that_another_program_needs(tmp_path, encoder):
    run, _ = make_run(tmp_path / "run", encoder=encoder)
    exported, ali = api.export(run), ali_fast.load(run)
    said = json.loads((exported / "config.json").read_text())
    nets = {name: load_file(exported / f"{name}.safetensors") for name in ("encoder", "decoder")}
    z = torch.randn(3, PRESET.architecture.z_dim, generator=torch.Generator().manual_seed(1))
    images, eps = ali.decode(z), said["batch_norm_eps"]
    x_tilde = forward(said["layers"]["decoder"], nets["decoder"], eps, z[:, :, None, None])
    assert torch.equal((x_tilde * 255).round().to(torch.uint8).permute(0, 2, 3, 1), images)
    codes = forward(said["layers"]["encoder"], nets["encoder"], eps, images.permute(0, 3, 1, 2) / 255).flatten(1)
    parts = codes.chunk(len(said["encoder_ends_in"]), dim=1)
    for name, part in zip(said["encoder_ends_in"], parts, strict=True):
        torch.testing.assert_close(part, getattr(ali.encode(images), name), rtol=1e-5, atol=1e-5)
    assert set(said["layers"]) == {"encoder", "decoder", "discriminator"}


@pytest.mark.parametrize("objective", PLAYERS)
def test_an_exports_layers_are_the_models(objective):
    players = PLAYERS[objective]
    more = {"classes": 10} if players.classes else {"y_dim": 10} if players.conditional else {}
    model = ALI(PRESET.architecture, kernels.resolve("eager", "cpu"), objective, **more)
    given = {"decoder_from": Path("run")} if players.frozen_decoder else {"labels": 100} if players.classes else {}
    layers = api._layers(TrainConfig(dataset="digits", objective=objective, **given).resolved())
    assert set(layers) == set(players.networks) - {"embedding"}
    for name, described in layers.items():
        stacks: dict[str, list] = {}
        for key, weight in getattr(model, name).state_dict().items():
            if found := re.fullmatch(r"(?:(\w+)\.)?products\.\d+\.weight", key):
                stacks.setdefault(f"{name}_{found[1]}" if found[1] else name, []).append([*weight.shape[2:]])
        assert {table: [r["kernel"] for r in described if r["table"] == table] for table in stacks} == stacks
        assert {row["table"] for row in described} == set(stacks)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective", "semi-supervised"),
        ("encoder", "foo"),
        ("classes", 10),
        ("condition", {"kind": "classes", "names": ["a"]}),
        ("image_shape", [9, 9, 1]),
        ("image_shape", [8, 8, 3]),
        ("image_shape", [8, 8, 2**70]),
    ],
)
def test_an_export_whose_parts_do_not_fit_is_named(run, field, value):
    exported = api.export(run)
    values = json.loads((exported / "config.json").read_text()) | {field: value}
    (exported / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="is not of a run of preset digits, objective"):
        ali_fast.load(exported)


@pytest.mark.parametrize(("name", "value"), [("objective", "post-hoc"), ("ema", 0.9)])
def test_a_checkpoint_of_another_run_is_named(run, name, value):
    _, state = api.newest_checkpoint(RunDirectory(run))
    state = {k: v for k, v in state.items() if k != "format"} | {"conditions": state["conditions"] | {name: value}}
    checkpoint.save(run / "checkpoints", 8, state, keep=3)
    with pytest.raises(InputError, match=f"step-00000008.pt is of another run than .*: {name} {value}, not "):
        ali_fast.load(run)


def test_torchs_modes_change_nothing(run):
    ali = ali_fast.load(run)
    images = ali.sample(4)
    codes, way = ali.encode(images), ali.interpolate(images[:2], images[2:], 3)
    with torch.autocast("cpu"):
        assert torch.equal(ali.encode(images).mu, codes.mu)
    torch.set_default_dtype(torch.float64)
    try:
        again = ali_fast.load(run)
        assert torch.equal(again.sample(4), images)
        assert again.encode(images).mu.dtype == torch.float32
        assert torch.equal(again.encode(images).sample(1), codes.sample(1))
        assert torch.equal(again.interpolate(images[:2], images[2:], 3), way)
    finally:
        torch.set_default_dtype(torch.float32)


def test_of_a_run_with_ema_the_average_is_used(tmp_path):
    path, model = make_run(tmp_path / "run")
    run = RunDirectory(path)
    _, state = api.newest_checkpoint(run)
    ema = {name: t + 0.1 for name, t in model.averaged_state().items()}
    state["step"]["ema"] = ema
    checkpoint.save(run.checkpoints, 8, {k: v for k, v in state.items() if k != "format"}, keep=3)
    for ali in (ali_fast.load(path), ali_fast.load(api.export(path))):
        for name, tensor in ali.model.state_dict().items():
            assert torch.equal(tensor, ema[name] if name in ema else model.state_dict()[name])


def test_a_deterministic_encoder_is_loaded_as_one(tmp_path):
    path, _ = make_run(tmp_path / "run", encoder="deterministic")
    for ali in (ali_fast.load(path), ali_fast.load(api.export(path))):
        codes = ali.encode(ali.sample(3))
        assert torch.equal(codes.sample(1), codes.mu)
        assert torch.equal(ali.interpolate(ali.sample(2), ali.sample(2), 2)[:, 0], ali.reconstruct(ali.sample(2)))


def test_export_is_the_same_bytes_for_equal_weights(tmp_path):
    """Two runs elsewhere, at another step, at another time."""
    (one, _), (two, _) = make_run(tmp_path / "one", step=7), make_run(tmp_path / "elsewhere" / "two", step=90)
    for file in sorted(api.export(one).iterdir()):
        twin = api.export(two) / file.name
        assert file.read_bytes() == twin.read_bytes()
        assert str(tmp_path).encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o044
    names = [file.name for file in sorted((one / "export").iterdir())]
    assert names == ["config.json", "decoder.safetensors", "discriminator.safetensors", "encoder.safetensors"]
    other, _ = make_run(tmp_path / "other", seed=1)
    assert (api.export(other) / names[1]).read_bytes() != (one / "export" / names[1]).read_bytes()


def test_a_damaged_export_is_named(run):
    exported = api.export(run)
    file = exported / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match="is no whole export"):
        ali_fast.load(exported)
    file.unlink()
    with pytest.raises(InputError, match="is no whole export"):
        ali_fast.load(exported)


def test_an_export_of_another_network_is_named(run):
    exported = api.export(run)
    values = json.loads((exported / "config.json").read_text())
    values |= {"dataset": "cifar10", "preset": "cifar10", "image_shape": [32, 32, 3]}
    (exported / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="another network"):
        ali_fast.load(exported)


@pytest.mark.parametrize("shape", [[8, 8], [8, 8, "1"], [8, 0, 1], 8, "881"])
def test_an_export_whose_images_have_no_shape_is_named(run, shape):
    exported = api.export(run)
    values = json.loads((exported / "config.json").read_text()) | {"image_shape": shape}
    (exported / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"is no whole export: image_shape is .*export the run again"):
        ali_fast.load(exported)


def test_what_cannot_be_loaded_is_named(tmp_path, run):
    with pytest.raises(InputError, match="is no run directory"):
        ali_fast.load(tmp_path / "absent")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint yet"):
        ali_fast.load(run)
    moved = dataclasses.replace(RunDirectory(run).read_config(), preset="gone")
    (run / "config.json").write_text(config.to_json(moved))
    with pytest.raises(InputError, match="no preset 'gone'"):
        ali_fast.load(run)


def _no_space():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_commands_on_a_run(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", str(run), "--n", "6", "--columns", "3"]) == 0
    assert cli.main(["reconstruct", str(run), "samples.png", "-o", "r.png", "--json", "r.json"]) == 0
    assert cli.main(["interpolate", str(run), "samples.png", "r.png", "-o", "i.png", "--steps", "3"]) == 0
    assert cli.main(["encode", str(run), "samples.png", "r.png", "-o", "codes"]) == 0
    codes = np.load("codes")
    assert codes["mu"].shape == codes["log_sigma"].shape == (2, PRESET.architecture.z_dim)
    assert list(codes["files"]) == ["samples.png", "r.png"]
    assert 0 < json.loads((tmp_path / "r.json").read_text())["reconstruction_error"] < 1
    capsys.readouterr()
    before = (tmp_path / "codes").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(np, "savez", lambda file, **_: file.write(b"half") and _no_space())
        assert cli.main(["encode", str(run), "r.png", "-o", "codes"]) == 2
        assert (tmp_path / "codes").read_bytes() == before
    assert "cannot write codes: No space left on device; " in capsys.readouterr().err
    for arguments in (
        ["sample", str(run), "--n", "0"],
        ["sample", str(run), "--seed", "-1"],
        ["interpolate", str(run), "samples.png", "r.png", "--seed", str(2**63)],
        ["interpolate", str(run), "samples.png"],
        ["encode", str(run)],
        ["encode", str(run), "absent.png"],
        ["encode", str(run), "codes"],
        ["encode", str(run), "r.png", "-o", "absent/codes"],
        ["sample", str(run), "-o", "absent/s.png"],
    ):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_interpolations_lead_from_the_first_image_to_the_second_and_from_the_third_to_the_fourth(run, tmp_path, capsys):
    ali = ali_fast.load(run)
    images = ali.sample(5).numpy()
    for i, image in enumerate(images):
        figures.write_png(image, tmp_path / f"{i}.png")
    files, drawn = [str(tmp_path / f"{i}.png") for i in range(5)], tmp_path / "i.png"
    assert cli.main(["interpolate", str(run), *files, "-o", str(drawn), "--steps", "3", "--seed", "2"]) == 0
    assert "of 5 images the last one is left out" in capsys.readouterr().out
    first, last = images[[0, 2]], images[[1, 3]]
    expected = figures.interpolations(first, ali.interpolate(first, last, 3, 2).numpy(), last)
    assert np.array_equal(np.asarray(Image.open(drawn)), expected[..., 0])


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "traverse"])
def test_a_picture_is_a_png_and_is_named_so(run, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ali_fast, "load", lambda directory: pytest.fail("the work has begun"))
    assert cli.main([command, str(run), "-o", "a/s.jpg"]) == 2
    assert "--output a/s.jpg: there is no folder a" in capsys.readouterr().err
    assert cli.main([command, str(run), "-o", "s.jpg"]) == 2
    assert capsys.readouterr().err == "ali-fast: --output s.jpg: the picture is a PNG; name it s.png\n"


@pytest.mark.parametrize("name", ["s.png", "s.PNG", "s", "/dev/null"])
def test_other_names_will_do(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", str(run), "--n", "2", "-o", name]) == 0
