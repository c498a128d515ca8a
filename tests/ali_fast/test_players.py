"""Each objective as a run: its networks, what it writes, resumed bit for bit, and what it refuses."""

import json

import numpy as np
import pytest
import torch

import ali_fast
from ali_fast import checkpoint, cli, metrics
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.objective import METRICS
from ali_fast.players import PLAYERS
from ali_fast.step import Step

STEPS = 6
OTHERS = [name for name in PLAYERS if name != "ali"]


@pytest.fixture(autouse=True)
def one_thread(restored):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def train(data, tmp_path_factory):
    """Trains an objective in a folder; returns the exit code. `gan` is there for those that need its decoder."""
    root = tmp_path_factory.mktemp("runs")

    def run(objective, run_dir, *more, steps=STEPS):
        flags = ["--data-dir", data, "--run-dir", run_dir, "--steps", steps, "--batch-size", 16, "--tick-images", 48]
        if PLAYERS[objective].frozen_decoder and "--decoder-from" not in more:
            flags += ["--decoder-from", root / "gan"]
        if PLAYERS[objective].classes:
            flags += ["--labels", 40]
        arguments = ["train", "--dataset", "digits", "--no-compile", "--device", "cpu", "--objective", objective]
        return cli.main([*arguments, *map(str, flags), *map(str, more)])

    run.gan = root / "gan"
    assert run("gan", run.gan) == 0
    return run


def newest(run):
    found = checkpoint.read_newest(run / "checkpoints", warn=pytest.fail)
    assert found is not None
    return found[1]["step"]


def leaves(state, name=""):
    """Every value of a checkpoint by its path; tensors as bytes."""
    if isinstance(state, torch.Tensor):
        return {name: state.contiguous().numpy().tobytes()}
    if isinstance(state, dict | list):
        inside = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in inside for k, v in leaves(value, f"{name}.{key}").items()}
    return {name: state}


@pytest.mark.parametrize("objective", OTHERS)
def test_a_run_writes_what_its_objective_has_and_resumes_bit_for_bit(train, tmp_path, objective):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(objective, straight) == 0
    assert train(objective, stopped, steps=4) == train(objective, stopped) == 0
    assert leaves(newest(stopped)) == leaves(newest(straight))

    line = metrics.read_metrics(straight / "metrics.jsonl")[-1]
    players = PLAYERS[objective]
    assert line["step"] == STEPS
    assert all(np.isfinite(line[name]) for name in METRICS[objective])
    assert ("winner" in line, "loss_d" in line) == (players.judged is not None,) * 2
    assert ("reconstruction_error" in line) == players.encoder
    assert ("held_out_error" in line) == players.classes
    figures = {path.stem for path in (straight / "figures").glob("*.png")}
    expected = {"samples", "reconstructions", "interpolations"} if players.encoder else {"samples"}
    assert figures == expected | ({"traverse"} if players.conditional else set())

    ali = ali_fast.load(straight)
    parts = {name.split(".")[0] for name in newest(straight)["model"]}
    assert parts == {"decoder"} | ({"encoder"} if players.encoder else set()) | (
        {"discriminator"} if players.judged else set()
    ) | ({"embedding"} if players.conditional else set())
    assert cli.main(["export", str(straight)]) == 0
    y = torch.tensor([3, 0, 9]) if players.conditional else None
    assert torch.equal(ali_fast.load(straight / "export").sample(3, y=y), ali.sample(3, y=y))
    if players.frozen_decoder:
        assert torch.equal(ali.sample(3), ali_fast.load(train.gan).sample(3))


def test_a_gan_infers_nothing_and_says_so(train, tmp_path, capsys):
    gan = ali_fast.load(train.gan)
    with pytest.raises(InputError, match="a GAN has no encoder"):
        gan.encode(gan.sample(2))
    capsys.readouterr()
    assert cli.main(["reconstruct", str(train.gan), "-o", str(tmp_path / "r.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_resumed_inference_keeps_its_decoder_when_the_named_run_trains_on(train, tmp_path):
    gan, run = tmp_path / "gan", tmp_path / "run"
    assert train("gan", gan) == 0
    assert train("inverse", run, "--decoder-from", gan, steps=3) == 0
    before = ali_fast.load(run).sample(4)
    assert train("gan", gan, steps=STEPS + 3) == train("inverse", run, "--decoder-from", gan) == 0
    assert torch.equal(ali_fast.load(run).sample(4), before)
    assert not torch.equal(ali_fast.load(gan).sample(4), before)


def test_mistakes_are_one_line_and_exit_code_2(train, data, tmp_path, capsys):
    def refused(arguments, *parts):
        capsys.readouterr()
        code = cli.main(["train", "--dataset", "digits", "--data-dir", str(data), *map(str, arguments)])
        err = capsys.readouterr().err
        assert code == 2
        assert err.count("\n") == 1
        assert all(part in err for part in parts), err

    run = ["--run-dir", tmp_path / "run", "--no-compile", "--steps", 1]
    refused([*run, "--objective", "post-hoc"], "--objective post-hoc", "--decoder-from RUN")
    refused([*run, "--objective", "vae", "--decoder-from", train.gan], "only inverse and post-hoc take one, not vae")
    refused([*run, "--decoder-from", train.gan], "not ali")
    absent = [*run, "--objective", "inverse", "--decoder-from"]
    refused([*absent, tmp_path / "absent"], "absent is no run directory")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((train.gan / "config.json").read_text())
    refused([*absent, tmp_path / "begun"], "has no checkpoint yet")
    conditional = tmp_path / "conditional"
    assert train("conditional", conditional) == 0
    refused([*absent, conditional], "a conditional run's decoder has to be told y, which inverse does not")
    refused([*run, "--labels", 100], "--labels 100: only --objective semi-supervised")
    classes = [*run, "--objective", "semi-supervised"]
    refused(classes, "needs --labels, such as 1000")
    refused([*classes, "--labels", 105], "must be a multiple of the 10 classes")
    refused([*classes, "--labels", 5000], "takes 500 of each class", "take at most")
    refused(["--run-dir", train.gan, "--steps", 9], "objective: gan -> ali")
    assert not (tmp_path / "run").exists()


def test_a_decoder_of_another_architecture_is_refused(train, tmp_path, capsys, monkeypatch):
    from ali_fast import api, kernels, presets
    from ali_fast.inference import Inference
    from ali_fast.model import ALI

    other = ALI(presets.resolve("fashion-mnist", "fashion-mnist-small").architecture, kernels.resolve("eager", "cpu"))
    monkeypatch.setattr(api, "load", lambda run, device: Inference(other, (28, 28, 1)))
    assert train("inverse", tmp_path) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "its decoder is not that of preset digits" in err


def test_a_low_precision_copy_of_a_frozen_decoder_comes_back(make_small):
    state = Step(
        make_small("maxout", torch.float32, objective="inverse"), learning_rate=1e-3, compile=False
    ).state_dict()
    model = make_small("maxout", torch.float32, objective="inverse")
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.add_(1)
    step = Step(model, learning_rate=1e-3, dtype=torch.bfloat16, compile=False)
    step.load_state_dict(state)
    for ours, theirs in zip(step.working.parameters(), step.model.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))


def test_configuration_and_default_folder_name_the_objective(train):

    assert json.loads((train.gan / "config.json").read_text())["objective"] == "gan"
    assert str(TrainConfig(dataset="digits", objective="vae").resolved().run_dir) == "runs/digits-vae"
    assert str(TrainConfig(dataset="digits").resolved().run_dir) == "runs/digits"
