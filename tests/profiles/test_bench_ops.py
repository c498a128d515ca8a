"""The benchmark of the ops: its sites, what it says the kernels cost, and the way to its numbers."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from ali_fast import presets
from profiles import bench_ops, clock, op_tables, op_times, option_sets
from profiles.op_sites import Cost, Site, our_cost, sites

ROOT = Path(__file__).parents[2]
BF16 = torch.bfloat16
PRESETS = {preset.name: preset for preset in presets.PRESETS}


def test_sites_of_cifar10():
    """As Appendix A has them: 12 batch norms on N images, 9 maxouts on 2 N pairs."""
    found = sites(PRESETS["cifar10"])
    by_op = {op: sum(n for site, n in found.items() if site.op == op) for op in {site.op for site in found}}
    assert by_op == {"batch_norm": 12, "maxout": 9, "bias_act": 1, "reparametrize": 1, "adversarial_loss": 1}
    assert found[Site("batch_norm", (100, 32, 28, 28), 0.1)] == 2, "of the encoder and of the decoder"
    assert found[Site("maxout", (200, 64, 13, 13), dropout=0.5, bias=True)] == 1
    assert found[Site("maxout", (200, 1024, 1, 1), dropout=0.5, bias=True)] == 2
    assert found[Site("bias_act", (200, 3, 32, 32), dropout=0.2)] == 1
    assert found[Site("reparametrize", (100, 128, 1, 1), dropout=0.2)] == 1


@pytest.mark.parametrize("name", ["svhn", "celeba", "imagenet64", "digits", "cifar10-code"])
def test_sites_are_the_networks(name):
    """As many as the networks' random sites and activations."""
    a = PRESETS[name].architecture
    rows = [row for table in a.layouts().values() for row in table]
    activations = [p for p in rows if p.row.norm or p.row.activation in ("leaky_relu", "maxout")]
    assert sum(sites(PRESETS[name]).values()) == len(activations) + 3


@pytest.mark.parametrize(
    ("site", "launches", "bytes_an_element"),
    [
        (Site("batch_norm", (100, 32, 28, 28), 0.1), (2, 2), (6, 10)),
        (Site("batch_norm", (200, 128, 29, 29), 0.02, 0.2), (2, 2), (6, 10)),
        (Site("batch_norm", (100, 256, 4, 4), 0.1), (1, 1), (4, 6)),
        (Site("maxout", (200, 128, 10, 10), dropout=0.5), (1, 1), (3.5, 3.5)),
        (Site("bias_act", (200, 64, 63, 63), 0.02, 0.2, bias=True), (1, 2), (4, 6)),
        (Site("bias_act", (200, 3, 32, 32), dropout=0.2), (1, 1), (4, 4)),
    ],
    ids=str,
)
def test_cost_of_the_kernels(site, launches, bytes_an_element):
    """Against the algorithm's own count: passes over the data, two bytes each (one of a code); the rest is little."""
    elements = torch.Size(site.shape).numel()
    costs = our_cost(site, BF16)
    assert tuple(cost.launches for cost in costs) == launches
    for cost, per_element in zip(costs, bytes_an_element, strict=True):
        assert per_element <= cost.bytes / elements < 1.12 * per_element


def test_the_loss_is_one_launch_and_no_backward():
    (cost,) = our_cost(Site("adversarial_loss", (200,)), BF16)
    assert cost == Cost(1, 200 * (2 + 2 + 2 + 4) + 16)


def test_paper_floor():
    """55 MB at 3 TB/s; 5.5 MB at the L2's 5.5 TB/s."""
    assert bench_ops.paper_us(60_000_000) == pytest.approx(20)
    assert bench_ops.paper_us(5_500_000) == pytest.approx(1)


@pytest.fixture
def no_gpu_needed(monkeypatch):
    """Stand-ins for streams, graphs and events; a replay takes a millisecond for all its calls."""
    for name in ("Stream", "stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **kwargs: contextlib.nullcontext())
    event = mock.MagicMock()
    event.elapsed_time.return_value = 5.0
    monkeypatch.setattr(torch.cuda, "Event", lambda **kwargs: event)
    monkeypatch.setattr(clock, "gpu_kernels", lambda call, calls: call() and 2.0)
    monkeypatch.setattr(op_times, "copy_us", lambda moved: 10.0)
    monkeypatch.setattr(option_sets, "OPTION_SETS", {})  # compiled for a CPU they would take minutes


@pytest.mark.parametrize("name", ["digits", "svhn"])
def test_every_site_is_measured(no_gpu_needed, monkeypatch, name):
    for site in {site.op: site for site in sites(PRESETS[name])}.values():
        small = Site(**{**vars(site), "shape": (4, *site.shape[1:]) if len(site.shape) > 1 else (8,)})
        row = bench_ops.measured(small, BF16, torch.device("cpu"))
        result = row["measured"]
        assert row["left_out"] == {}
        expected = {"forward"} if site.op == "adversarial_loss" else {"forward", "backward"}
        assert set(result) == {"copy", "eager", "triton"} and all(set(p) == expected for p in result.values())
        assert result["triton"]["forward"]["us"] == pytest.approx(5.0 * 1e3 / (5 * op_times.COPIES))
        assert result["triton"]["forward"]["share"] == pytest.approx(10.0 / 50.0)
        list(op_tables.time_table([{"site": "", "times": 1, **row}]))


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x + 1

    @staticmethod
    def backward(ctx, dy):
        raise RuntimeError("does not compile\nand more")


@pytest.mark.usefixtures("no_gpu_needed")
def test_a_variant_that_does_not_compile_costs_no_other(monkeypatch):
    """Not when it is made, not in its backward."""
    monkeypatch.setattr(option_sets, "OPTION_SETS", {"unknown": {"no such option": True}})
    variants = bench_ops.variants
    broken = {"broken": lambda: lambda seeds, x, *rest: (NoBackward.apply(x),)}
    monkeypatch.setattr(bench_ops, "variants", lambda site: broken | variants(site))
    row = bench_ops.measured(Site("maxout", (4, 8, 3, 3)), BF16, torch.device("cpu"))
    assert row["measured"].keys() == {"copy", "eager", "triton"}
    assert row["left_out"].keys() == {"broken", "inductor, unknown"}
    assert row["left_out"]["broken"] == "RuntimeError: does not compile"
    assert "no such option" in row["left_out"]["inductor, unknown"]


def test_an_unknown_preset_is_named():
    done = _run("--preset", "cifar11")
    assert done.returncode == 2 and "--preset cifar11" in done.stderr and "cifar10" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="pretending a GPU needs the CPU build of torch")
def test_counted_without_a_gpu(tmp_path):
    """The command on the digits; Inductor's well-known weakness: a batch norm's gradient written in float32."""
    done = _run("--preset", "digits", "--json", tmp_path / "ops.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "ops.json").read_text())["rows"]
    assert {row["op"] for row in rows} == {"batch_norm", "maxout", "bias_act", "reparametrize", "adversarial_loss"}
    for row in rows:
        for passes in (row["triton"], *row["inductor"].values()):
            assert len(passes) == 1 + (row["op"] != "adversarial_loss")
            assert all(one["launches"] >= 1 and one["bytes"] > 0 for one in passes.values())
    norm = next(row for row in rows if row["op"] == "batch_norm" and "100x32x6x6" in row["site"])
    default, reads, ours = (norm["inductor"]["default"], norm["inductor"]["reads"], norm["triton"])
    assert default["backward"]["bytes"] > 1.8 * reads["backward"]["bytes"]
    assert default["backward"]["launches"] > ours["backward"]["launches"]


def _run(*arguments):
    command = [sys.executable, "-m", "profiles.bench_ops", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
