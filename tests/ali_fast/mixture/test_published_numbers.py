"""What the mixture's published numbers stand on: nets, settings, seeds, counts of samples, and how they are shown."""

import json
import math

import numpy as np
import pytest
import torch
from alone import SIZES, network

from ali_fast.mixture import kept, measures, protocol, results, sampling, search, setting, training
from ali_fast.mixture.config import RunConfig, SearchConfig
from ali_fast.mixture.measures import Modes
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.nets import PAPER
from ali_fast.mixture.protocol import MixtureRun
from ali_fast.mixture.sampling import PACGAN_SAMPLES, SAMPLES
from ali_fast.mixture.setting import RECOMMENDED, Setting, draw_protocol, draw_search, member_seed


def shapes(net):
    return [tuple(layer.weight.shape[1:]) for layer in net.layers]


def test_the_nets_are_the_papers():
    """Section 4.5 and its code, layer by layer; biases and shifts begin at 0, scales at 1."""
    ali, gan, vae = (MODELS[name](1, PAPER) for name in ("ali", "gan", "vae"))
    assert shapes(ali.encoder) == [(4, 400), (400, 400), (400, 2)]
    assert shapes(vae.encoder) == [(2, 400), (400, 400), (400, 4)]
    assert shapes(ali.decoder) == [(2, 400), *[(400, 400)] * 3, (400, 2)]
    assert shapes(ali.discriminator) == [(4, 5 * 200), *[(200, 5 * 200)] * 2, (200, 1)]
    assert shapes(gan.discriminator) == [(2, 5 * 200), *[(200, 5 * 200)] * 2, (200, 1)]
    assert [layer.pieces for layer in ali.discriminator.layers[:-1]] == [5] * 3
    biased = [[hasattr(layer, "bias") for layer in net.layers] for net in (ali.encoder, ali.decoder, ali.discriminator)]
    assert biased == [[False, False, True], [False] * 4 + [True], [True] * 4]  # D's by default of its LinearMaxout
    for name, p in ali.named_parameters():
        if not name.endswith("weight"):
            assert (p == (1 if name.endswith("scale") else 0)).all(), name


def test_settings_and_numbers_of_samples_that_the_readme_states():
    assert (SAMPLES, PACGAN_SAMPLES) == (10_000, 2_500)
    assert Setting(learning_rate=1e-3, beta1=0.9) == protocol.VAE_SETTING
    assert Setting() == Setting(learning_rate=1e-4, beta1=0.8, init_std=0.02)
    found = Setting(
        learning_rate=4.5e-4, beta1=0.3, init_std=0.04, discriminator_rate=1.5, decay_from=0.4, gradient_penalty=0.5
    )
    assert found == RECOMMENDED


@pytest.mark.parametrize("name", ["ali", "inverse", "post-hoc", "vae"])
def test_codes_in_evaluation_are_the_encoders(make_step, name):
    model = make_step(name).model.eval()
    x, eps = torch.randn(2, 3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.encode(x, eps)
        for r in range(3):
            net = network(model.encoder, r).eval()
            if name == "vae":
                mu, log_sigma = net(x[r]).chunk(2, 1)
                expected = mu + torch.exp(log_sigma) * eps[r]
            else:
                expected = net(torch.cat([x[r], eps[r]], 1))
            assert torch.allclose(found[r], expected, atol=1e-12)


def of_modes(near, quality, kl):
    return Modes(near, near, quality, 9.0, kl, math.inf)


def test_a_summary_and_the_tables_cells():
    settings, seeds = [Setting()] * 4, range(4)
    found = [of_modes(20, 0.5, 0.1), of_modes(24, 0.7, 0.3), of_modes(25, 0.9, 0.5), of_modes(1, 0.1, 9.0)]
    runs = results.of_runs(settings, seeds, [None, None, None, 6], found, found)
    assert [run["status"] for run in runs] == ["trained"] * 3 + ["diverged at step 7"]  # counted from 1
    of_all = results.summary(runs, "modes_2500")
    std = np.std([20, 24, 25], ddof=1)
    assert of_all["near"] == pytest.approx(
        {"mean": 23, "std": std, "stderr": std / math.sqrt(3), "min": 20, "max": 25, "over": 3}
    )
    table = results.coverage_table({"ali": {"summary": results.summary(runs), "summary_2500": of_all}})
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert cells[1:3] == ["3 of 4", "23.0 ± 2.6 (20 to 25)"]
    assert cells[4::2] == ["23.0 ± 1.5", "70.0 ± 11.5 %", "0.30 ± 0.12"]


def test_a_mean_says_over_how_many_runs_and_one_run_has_no_error():
    """A run without a good sample has no reverse KL of them: no reason to look perfect."""
    found = [of_modes(25, 0.9, 0.1), of_modes(24, 0.8, 0.2), of_modes(0, 0.0, math.nan)]
    for trained, cell in ((3, "0.15 ± 0.05 (of 2)"), (2, "0.15 ± 0.05"), (1, "0.10")):
        runs = results.of_runs(
            [Setting()] * trained, range(trained), [None] * trained, found[:trained], found[:trained]
        )
        of_all = results.summary(runs, "modes_2500")
        table = results.coverage_table({"ali": {"summary": results.summary(runs), "summary_2500": of_all}})
        cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
        assert cells[8] == cell
    assert cells[2:5:2] == ["25.0", "25.0"]


def test_measures_are_of_as_many_samples_as_their_names_say(make_config, console, monkeypatch):
    def covered(model, seeds, count):
        return [Modes(count, count, 0.0, 0.0, 0.0, 0.0) for _ in seeds]

    monkeypatch.setattr(sampling, "covered", covered)
    config = make_config(methods=("gan",), inference=False, epochs=1, runs=2)
    for run in protocol.run(config, console, SIZES)["methods"]["gan"]["runs"]:
        assert run["modes"]["covered"] == sampling.SAMPLES
        assert run["modes_2500"]["covered"] == sampling.PACGAN_SAMPLES


@pytest.mark.usefixtures("few_samples")
def test_a_columns_inference_is_of_its_reconstructions(whole):
    """Two lines for test_a_column_is_measured_on_the_held_out_points."""
    points, _ = protocol.read_points(whole.data_dir, "valid")
    for name in ("ali", "vae"):
        made = sampling.encode_and_decode(kept.load(whole.run_dir, name, SIZES), points)
        inference = json.loads((whole.run_dir / "results.json").read_text())["columns"][name]["inference"]
        assert inference["mmd2_points"] == pytest.approx(measures.mmd2(made["reconstructions"], points))
        same = measures.reconstruction(points, made["reconstructions"]).same_component
        assert inference["same_component"] == pytest.approx(same)


def test_bandwidths_and_ranges_that_published_numbers_are_by():
    assert measures.BANDWIDTHS == (2.0, 1.0, 0.5, 0.25, 0.125)
    ranges = (setting.LEARNING_RATE_RANGE, setting.BETA1_RANGE, setting.INIT_STD_RANGE)
    assert ranges == ((1e-5, 1e-3), (0.0, 0.9), (0.005, 0.1))


def test_another_seed_is_another_protocol_and_another_search(make_config, console):

    assert RunConfig(seed=5).settings() == tuple(draw_protocol(5, i) for i in range(10))
    assert SearchConfig(seed=5, trials=6).settings() == tuple(draw_search(5, i) for i in range(6))
    mixture = MixtureRun(make_config(seed=5), console, None, SIZES)
    assert mixture.seeds("ali", 2) == (member_seed(5, "ali", 0), member_seed(5, "ali", 1))


def test_a_searchs_members_are_its_seeds(data_dir, tmp_path, console, monkeypatch):
    asked = []

    def train(job, points, place):
        asked.extend(job.seeds)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", train)
    config = SearchConfig(data_dir=data_dir, run_dir=tmp_path, trials=2, seed=5, compile=False, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        search.search(config, console, SIZES)
    assert asked == [member_seed(5, "search", i) for i in range(2)]
