"""The waterfall on a CPU, with the compiler left out but for one slow test."""

import json
import time

import pytest
import torch

from ali_fast import presets
from profiles import bench_step, clock, waterfall
from profiles.waterfall import Row, Running

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
KEYS = ["name", "step_ms", "spread_ms", "images_per_s", "gflop", "kernels", "peak_bytes", "ratio"]


@pytest.fixture
def preset():
    return presets.resolve("digits")


@pytest.fixture
def bench(tmp_path):
    """`main` on the digits' preset; returns what it wrote."""
    small = ["--dataset", "digits", "--device", "cpu", "--batch-size", "4", "--rounds", "3", "--burst-seconds", "0.01"]
    written = ["--json", str(tmp_path / "step.json"), "--chart", str(tmp_path / "step.png")]

    def call(*flags):
        bench_step.main([*small, *written, *flags])
        return json.loads((tmp_path / "step.json").read_text())

    return call


@pytest.fixture
def not_compiled(monkeypatch):
    monkeypatch.setattr("ali_fast.step.compiled", lambda function, *_: function)


@pytest.mark.usefixtures("not_compiled")
def test_from_the_usual_step_to_the_one_that_train_takes(bench, tmp_path, capsys):
    written = bench()
    rows = written["rows"]
    assert [row["name"] for row in rows] == [
        "usual PyTorch step",
        "channels-last",
        "official order: one forward, two backwards",
        "cheapest route",
        "compiled, Inductor's own kernels",
        "compiled (as train)",
    ]
    for row in rows:
        assert list(row) == KEYS
        assert row["images_per_s"] == pytest.approx(4 / row["step_ms"] * 1e3)
        assert row["ratio"] == pytest.approx(rows[0]["step_ms"] / row["step_ms"])
        assert row["kernels"] is row["peak_bytes"] is None
    work = [row["gflop"] for row in rows]
    assert work[0] == work[1] > work[2] > work[3] == work[4] == work[5] > 0
    assert written["batch_size"] == 4
    assert written["device"]
    assert written["versions"]["torch"] == torch.__version__
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for row in rows:
        assert f"| {row['name']} |" in printed


@pytest.mark.usefixtures("not_compiled")
def test_two_backwards_in_every_row_of_ours(bench):
    """Or the difference that one makes could not be seen compiled, in bf16, in a graph."""
    written = bench("--backward", "two")
    work = [row["gflop"] for row in written["rows"]]
    assert work[0] == work[1] > work[2] == work[3] == work[4] == work[5] > 0
    assert (written["rows"][3]["name"], written["backward"]) == ("route 'two'", "two")


@pytest.mark.usefixtures("not_compiled")
def test_only_the_ends(bench, monkeypatch):
    """Nothing is counted for a row that is not shown."""
    counted = []
    monkeypatch.setattr(waterfall, "step_gflop", lambda preset, route, *_: counted.append(route) or 1.0)
    assert [row["name"] for row in bench("--only", "ends")["rows"]] == ["usual PyTorch step", "compiled (as train)"]
    assert counted == [None]


def test_a_step_is_made_warm_without_a_profiler(monkeypatch):
    """The timing after it would be slower, and nsys could not record."""
    monkeypatch.setattr(clock, "gpu_kernels", lambda call: pytest.fail("profiled"))
    monkeypatch.setattr(clock, "synchronize", lambda device: None)
    monkeypatch.setattr(waterfall, "synthetic", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 15)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    calls = []
    row = Row("a row", lambda: calls.append, lambda: 1.0, torch.float32)
    running = waterfall.start(row, None, 4, CUDA)
    assert len(calls) == waterfall.WARM_UP
    assert running.peak_bytes == 5


def test_kernels_are_counted_when_all_is_timed(monkeypatch):
    done = []
    rows = [Row(name, None, lambda: 1.0, torch.float32) for name in "ab"]
    started = {name: Running(name, 5) for name in "ab"}
    monkeypatch.setattr(
        clock, "interleaved", lambda calls, *_, **__: done.extend(calls) or [clock.Spread(1.0, 0.1) for _ in calls]
    )
    monkeypatch.setattr(clock, "gpu_kernels", lambda call: done.append(f"kernels of {call}") or 7.0)
    results = bench_step.bench(rows, started, 4, CUDA, rounds=1, burst_seconds=0.0)
    assert done == ["a", "b", "kernels of a", "kernels of b"]
    assert [row["kernels"] for row in results] == [7.0, 7.0]


def test_half_precision_is_a_row_of_its_own(preset):
    names = [row.name for row in waterfall.rows(preset, 4, CPU, amp=True)]
    assert names[4] == "AMP (bfloat16)"


@pytest.mark.parametrize(
    ("capability", "low", "last"),
    [
        ((9, 0), torch.bfloat16, "as train: E beside G, each Adam on its line"),
        ((9, 0), torch.float16, "as train: weight gradients beside"),
        ((8, 0), torch.bfloat16, "as train: --kernels auto"),
    ],
)
def test_the_last_row_is_what_train_takes_on_that_gpu(preset, monkeypatch, capability, low, last):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    monkeypatch.setattr("ali_fast.decide.dtype", lambda amp, where: (low, ""))
    names = [row.name for row in waterfall.rows(preset, 4, CUDA, amp=True)]
    assert names[-1] == last
    assert len(set(names)) == len(names) == (14 if low == torch.bfloat16 else 13)
    assert [name for name in names if name.startswith("as train")] == [last]


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (torch.float16, {}, "two"),
        (torch.float16, {"dtype": torch.float32}, None),
        (torch.bfloat16, {}, None),
        (torch.float32, {"route": "two"}, "two"),
    ],
)
def test_a_row_counts_the_route_that_it_takes(preset, dtype, options, expected):
    """The losses of fp16 are scaled apart: two backwards."""
    counted = []
    waterfall.Ours(preset, CPU, dtype, counted.append).row("a row", **options).gflop()
    assert counted == [expected]


def failing():
    raise RuntimeError("no such kernel\nand more")


@pytest.mark.usefixtures("not_compiled")
def test_a_row_that_fails_or_comes_late_is_left_out_and_named(preset):
    rows = list(waterfall.rows(preset, 4, CPU, amp=False))
    rows[2] = rows[2]._replace(make=failing)
    started, left_out = bench_step.start_all(rows, preset, 4, CPU)
    assert left_out == {rows[2].name: "RuntimeError: no such kernel"}
    assert started.keys() == {row.name for row in rows} - left_out.keys()
    results = bench_step.bench(rows, started, 4, CPU, rounds=1, burst_seconds=0.0)
    assert [row["name"] for row in results] == [row.name for row in rows if row.name in started]
    started, late = bench_step.start_all(rows, preset, 4, CPU, until=time.perf_counter() - 1.0)
    assert not started
    assert late.keys() == {row.name for row in rows}


@pytest.fixture
def begun(monkeypatch):
    """Names of the rows in the order in which they are started; no row computes anything."""
    names = []
    monkeypatch.setattr(
        bench_step, "start", lambda row, *_: names.append(row.name) or Running(lambda: time.sleep(1e-4), None)
    )
    for name in ("usual_gflop", "step_gflop"):
        monkeypatch.setattr(waterfall, name, lambda *_: 1.0)
    return names


def test_what_is_nearest_to_train_starts_first(bench, preset, begun):
    bench()
    names = [row.name for row in waterfall.rows(preset, 4, CPU, amp=False)]
    assert begun == [names[0], *reversed(names[1:])]


def test_no_time_is_still_time_for_the_ends(bench, preset, begun):
    written = bench("--start-seconds", "0")
    names = [row.name for row in waterfall.rows(preset, 4, CPU, amp=False)]
    assert begun == [row["name"] for row in written["rows"]] == [names[0], names[-1]]
    assert written["left_out"].keys() == set(names[1:-1])


def test_a_run_killed_between_leaves_the_ends(bench, preset, begun, monkeypatch, tmp_path, capsys):
    class KilledError(BaseException):
        pass

    def killed(row, *rest):
        if len(begun) == 3:
            raise KilledError
        return start(row, *rest)

    start = bench_step.start
    monkeypatch.setattr(bench_step, "start", killed)
    with pytest.raises(KilledError):
        bench()
    written = json.loads((tmp_path / "step.json").read_text())
    names = [row.name for row in waterfall.rows(preset, 4, CPU, amp=False)]
    assert [row["name"] for row in written["rows"]] == [names[0], names[-1]]
    printed = capsys.readouterr().out
    for row in written["rows"]:
        assert list(row) == KEYS
        assert f"| {row['name']} |" in printed
    assert set(written["left_out"]) == set(names[1:-1])


def test_the_ends_are_timed_early_but_not_profiled(bench, begun, monkeypatch):
    """What comes after a profiler may be slower: one that counts kernels runs when nothing is left to time."""
    done = []
    interleaved = clock.interleaved
    monkeypatch.setattr(
        clock, "interleaved", lambda calls, *a, **kw: done.append(len(calls)) or interleaved(calls, CPU, **kw)
    )
    monkeypatch.setattr(clock, "gpu_kernels", lambda call: done.append("kernels") or 7.0)
    whole = bench_step.bench
    monkeypatch.setattr(bench_step, "bench", lambda *a, device, **kw: whole(*a, device=CUDA, **kw))
    written = bench()
    assert done == [2, 6, *["kernels"] * 6]
    assert {row["kernels"] for row in written["rows"]} == {7.0}


@pytest.mark.usefixtures("not_compiled")
def test_without_the_first_row_there_is_nothing_to_compare(bench, monkeypatch):
    monkeypatch.setattr(waterfall, "UsualStep", lambda *_, **__: failing())
    with pytest.raises(SystemExit, match="first row"):
        bench("--only", "ends")


@pytest.mark.slow
def test_the_whole_waterfall(bench):
    assert bench()["rows"][-1]["ratio"] > 0
