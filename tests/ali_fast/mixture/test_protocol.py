"""The whole experiment on small nets: phases, files, resuming, what diverges, what is refused."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from alone import SIZES
from torch.torch_version import TorchVersion

from ali_fast import checkpoint
from ali_fast.errors import InputError, Interrupted
from ali_fast.mixture import kept, measures, protocol, sampling, training
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.setting import Setting

pytestmark = pytest.mark.usefixtures("few_samples")


def results_of(config):
    return json.loads((config.run_dir / "results.json").read_text())


def test_the_protocol_leaves_numbers_tables_models_and_the_figure(whole):
    config = whole
    found = results_of(config)
    for method in ("ali", "gan"):
        of_method = found["methods"][method]
        assert [run["setting"]["learning_rate"] for run in of_method["runs"]] == [
            setting.learning_rate for setting in config.settings()
        ]
        covered = [run["modes"]["covered"] for run in of_method["runs"]]
        assert of_method["summary"]["covered"]["mean"] == pytest.approx(np.mean(covered))
        assert of_method["summary"]["covered"]["std"] == pytest.approx(np.std(covered, ddof=1))
        assert of_method["best"] == max(
            range(3),
            key=lambda i: (
                covered[i],
                of_method["runs"][i]["modes"]["near"],
                -of_method["runs"][i]["modes"]["reverse_kl"],
            ),
        )
        assert of_method["steps"] == 3 * 400 // 50
    assert list(found["columns"]) == ["ali", "inverse", "post-hoc", "vae"]
    table = (config.run_dir / "tables.md").read_text()
    assert "13.4 ± 5.8 (8 to 25)" in table
    assert "10.4 ± 9.2 (1 to 22)" in table
    for name in ("figure8.png", "figure8.pdf", "environment.json", "config.json"):
        assert (config.run_dir / name).stat().st_size > 0
    best = found["methods"]["gan"]["best"]
    gan_setting = found["methods"]["gan"]["runs"][best]["setting"]
    assert found["columns"]["inverse"]["setting"] == found["columns"]["post-hoc"]["setting"] == gan_setting


def test_kept_models_are_the_best_members_and_inference_uses_the_gans_decoder(whole):
    config = whole
    for method in ("ali", "gan"):
        best = results_of(config)["methods"][method]["best"]
        _, state = checkpoint.read_newest(config.run_dir / method / "checkpoints", warn=print)
        best_member = kept.load(config.run_dir, method, SIZES).state_dict()
        trained = state["step"]["model"]
        assert best_member.keys() == trained.keys()
        assert all(torch.equal(best_member[name][0], trained[name][best]) for name in trained)
    gan = kept.load(config.run_dir, "gan", SIZES).decoder.state_dict()
    for name in ("inverse", "post-hoc"):
        decoder = kept.load(config.run_dir, name, SIZES).decoder.state_dict()
        assert all(torch.equal(decoder[key], gan[key]) for key in gan)


def test_a_column_is_measured_on_the_held_out_points(make_config, console, data_dir):
    config = make_config(methods=("ali",))
    protocol.run(config, console, SIZES)
    points, components = protocol.read_points(data_dir, "valid")
    assert len(points) == len(components) == 300
    made = sampling.encode_and_decode(kept.load(config.run_dir, "ali", SIZES), points)
    assert all(tensor.shape == (300, 2) for tensor in made.values())
    inference = results_of(config)["columns"]["ali"]["inference"]
    error = (points.double() - made["reconstructions"].double()).square().sum(dim=1).mean()
    assert inference["error"] == pytest.approx(float(error))
    assert inference["mmd2_codes"] == pytest.approx(measures.mmd2(made["codes"], made["prior"]))
    # z -> x_tilde -> is the decoder's, in evaluation mode
    model = kept.load(config.run_dir, "ali", SIZES).eval()
    with torch.no_grad():
        assert torch.allclose(model.decode(made["prior"][None])[0], made["samples"], atol=1e-6)
        assert torch.allclose(model.decode(made["codes"][None])[0], made["reconstructions"], atol=1e-6)


@pytest.mark.parametrize(("phase", "at"), [("gan", 5), ("post-hoc", 9)])
def test_a_stopped_run_ends_as_one_that_was_not(make_config, console, whole, monkeypatch, phase, at):
    advance = training._Log.advance

    def with_signal(log):
        advance(log)
        if (log.job.model, log.step.steps) == (phase, at):
            os.kill(os.getpid(), signal.SIGINT)

    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(training._Log, "advance", with_signal)
        with pytest.raises(Interrupted) as stopped:
            protocol.run(config, console, SIZES)
    assert stopped.value.exit_code == 130
    protocol.run(config, console, SIZES)
    for name in MODELS:
        ours, theirs = (kept.load(c.run_dir, name, SIZES).state_dict() for c in (config, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (config.run_dir / "figure8.png").read_bytes() == (whole.run_dir / "figure8.png").read_bytes()
    for key in ("modes", "inference"):
        ours, theirs = ([column[key] for column in results_of(c)["columns"].values()] for c in (config, whole))
        assert ours == theirs


def test_a_diverged_run_is_reported_and_the_others_count(make_config, console):
    config = make_config(methods=("gan",), inference=False)
    good = config.settings()
    with protocol.opened(config, console, SIZES) as mixture:
        protocol.train_method(mixture, "gan", (good[0], dataclasses.replace(good[1], learning_rate=1e30), good[2]))
    found = results_of(config)["methods"]["gan"]
    statuses = [run["status"] for run in found["runs"]]
    assert statuses[0] == statuses[2] == "trained"
    assert statuses[1].startswith("diverged at step ")
    assert found["runs"][1]["modes"] is None
    assert (found["summary"]["runs"], found["summary"]["trained"], found["summary"]["covered"]["over"]) == (3, 2, 2)
    assert found["best"] in (0, 2)
    assert "diverged at step" in protocol.write_tables(config.run_dir, results_of(config))


def test_a_column_that_diverged_is_reported_and_not_kept(make_config, console):
    config = make_config()
    with protocol.opened(config, console, SIZES) as mixture:
        protocol.train_column(mixture, "vae", Setting(learning_rate=1e30))
    assert not kept.path(config.run_dir, "vae").exists()
    found = results_of(config)["columns"]["vae"]
    assert (found["modes"], found["inference"]) == (None, None)
    assert found["status"].startswith("diverged at step ")


def test_when_every_gan_diverged_the_rest_is_still_done(make_config, console):
    config = make_config(learning_rate=1e30, methods=("gan",), runs=2)
    protocol.run(config, console, SIZES)
    found = results_of(config)
    assert found["methods"]["gan"]["best"] is None
    assert list(found["columns"]) == ["vae"]
    assert found["columns"]["vae"]["status"] == "trained"
    assert "none trained" in (config.run_dir / "tables.md").read_text()


def test_another_configuration_is_refused_by_the_fields_that_differ(make_config, console):
    config = make_config(methods=("ali",), inference=False, epochs=1)
    protocol.run(config, console, SIZES)
    with pytest.raises(InputError, match=r"runs: 3 -> 2; beta1: None -> 0\.5"):
        protocol.run(dataclasses.replace(config, runs=2, beta1=0.5), console, SIZES)
    protocol.run(dataclasses.replace(config, device="auto"), console, SIZES)


@pytest.mark.parametrize("damage", [b'{"command": "ru', b"[]", b"\xff", b""], ids=["cut", "list", "binary", "empty"])
def test_a_damaged_configuration_is_named(make_config, console, damage):
    config = make_config()
    (config.run_dir / "ali" / "checkpoints").mkdir(parents=True)
    (config.run_dir / "ali" / "checkpoints" / "step-00000001.pt").touch()
    (config.run_dir / "config.json").write_bytes(damage)
    with (
        pytest.raises(InputError, match=r"config\.json: .*restore it from a copy, or use another run directory"),
        protocol.opened(config, console, SIZES),
    ):
        pass
    assert (config.run_dir / "config.json").read_bytes() == damage


def test_a_trainings_directory_is_left_as_it_is(make_config, console):
    config = make_config()
    (config.run_dir / "checkpoints").mkdir(parents=True)
    (config.run_dir / "checkpoints" / "step-00000001.pt").touch()
    (config.run_dir / "config.json").write_text("a training's")
    with (
        pytest.raises(InputError, match="holds a run of ali-fast train: give another"),
        protocol.opened(config, console, SIZES),
    ):
        pass
    assert (config.run_dir / "config.json").read_text() == "a training's"


def test_a_figure_of_nothing_and_a_damaged_model_are_the_users_to_know(make_config, console, data_dir, tmp_path):
    with pytest.raises(InputError, match="has no model that figure 8 shows"):
        protocol.draw(tmp_path, data_dir)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "best.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(InputError, match=r"best\.safetensors cannot be read as vae"):
        protocol.draw(tmp_path, data_dir)


def test_a_command_that_failed_binds_nobody_and_more_may_be_asked_later(make_config, console):
    config = make_config(methods=("ali",), inference=False, epochs=1)
    with pytest.raises(InputError, match="batch"):
        protocol.run(dataclasses.replace(config, batch_size=10**6), console, SIZES)
    protocol.run(config, console, SIZES)
    weights = (config.run_dir / "ali" / "best.safetensors").read_bytes()
    found = protocol.run(dataclasses.replace(config, methods=("ali", "gan")), console, SIZES)
    assert found["methods"].keys() == {"ali", "gan"}
    assert (config.run_dir / "ali" / "best.safetensors").read_bytes() == weights


def test_torch_2_11_trains_eagerly_on_a_cpu_and_it_says_so(make_config, console, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.0+cpu"))
    with protocol.opened(dataclasses.replace(make_config(), compile=True), console, SIZES) as mixture:
        assert not mixture.compiles
    assert "training eagerly" in console.file.getvalue()


@pytest.fixture
def precision():
    """The process' own is put back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(("tf32", "expected"), [(False, "highest"), (True, "high")])
def test_tf32_is_for_those_who_ask(make_config, console, tf32, expected):
    with protocol.opened(make_config(tf32=tf32), console, SIZES):
        assert torch.get_float32_matmul_precision() == expected
