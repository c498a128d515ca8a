"""The suite with parts of a second: what each outcome leaves behind. The real parts run under `-m slow`."""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profiles import gpu_suite
from profiles.gpu_suite import Part

WRITES = """
import json, pathlib
pathlib.Path({path!r}).write_text(json.dumps(dict(rows=[dict(name="first", step_ms=1.5)])))
print("| a | b |"); print("| --- | --- |"); print("done")
"""
HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({path!r}).write_text(str(child.pid))
print("begun", flush=True)
time.sleep(60)
"""


def python(code):
    return lambda args: [sys.executable, "-c", code]


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """`main` over given parts; returns its exit code, results.json and summary.md."""
    monkeypatch.setattr(gpu_suite, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(gpu_suite, "RUN", tmp_path / "cache" / "run")
    monkeypatch.setattr(gpu_suite, "NUMBERS", tmp_path / "cache" / "numbers")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def call(*parts, flags=()):
        monkeypatch.setattr(gpu_suite, "PARTS", parts)
        code = 0
        try:
            gpu_suite.main(["--out", str(tmp_path / "out"), *flags])
        except SystemExit as end:
            code = end.code
        out = tmp_path / "out"
        return code, json.loads((out / "results.json").read_text()), (out / "summary.md").read_text()

    return call


def outcomes(results):
    return {name: part["outcome"] for name, part in results["parts"].items()}


def test_numbers_and_words_of_every_part_are_kept(suite, tmp_path):
    writes = python(WRITES.format(path=str(tmp_path / "cache" / "numbers" / "writes.json")))
    code, results, summary = suite(
        Part("writes", 30, writes),
        Part("fails", 30, python("import sys; print('why it failed'); sys.exit(3)")),
        Part("gpu", 30, python(""), needs_gpu=True),
        Part("data", 30, lambda args: None, missing="no data"),
    )
    assert code == 1
    assert outcomes(results) == {
        "writes": "done",
        "fails": "failed (exit code 3)",
        "gpu": "skipped: needs a GPU",
        "data": "skipped: no data",
    }
    assert results["parts"]["writes"]["rows"] == [{"name": "first", "step_ms": 1.5}]
    assert {"device", "versions", "command"} <= results.keys()
    for line in ("| writes | done |", "| gpu | skipped: needs a GPU |", "    why it failed", "\n| a | b |"):
        assert line in summary


def test_interrupted_the_suite_takes_its_part_along(suite, tmp_path, monkeypatch):
    child = tmp_path / "child"

    def interrupted(begun):
        while not child.exists() or not child.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_suite, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite(Part("hangs", 30, python(HANGS.format(path=str(child)))))
    assert_dead(child)


MEETS = """
import pathlib, sys, time
mine, other = map(pathlib.Path, ({mine!r}, {other!r}))
mine.touch()
while not other.exists():
    time.sleep(0.01)
print("met")
"""


def test_what_times_nothing_runs_side_by_side_and_what_does_alone(suite, tmp_path):
    """The first waits for the second to begin, the second for the first to end; what is timed finds both ended."""
    one, two, ended = (str(tmp_path / name) for name in ("one", "two", "ended"))
    ends = f"time.sleep(0.3); pathlib.Path({ended!r}).touch()"
    code, results, summary = suite(
        Part("one", 20, python(MEETS.format(mine=one, other=two) + ends), beside=True),
        Part("two", 20, python(MEETS.format(mine=two, other=ended)), beside=True),
        Part("timed", 20, python(f"import os; print('alone', os.path.exists({ended!r}))")),
    )
    assert code == 0
    assert list(results["parts"]) == ["one", "two", "timed"]
    assert summary.count("    met") == 2
    assert "    alone True" in summary


def test_a_part_that_hangs_is_stopped_with_what_it_started(suite, tmp_path):
    start = time.perf_counter()
    hangs = python(HANGS.format(path=str(tmp_path / "child")))
    code, results, summary = suite(Part("hangs", 3, hangs), Part("next", 30, python("print('still here')")))
    assert time.perf_counter() - start < 15
    assert code == 1
    assert outcomes(results) == {"hangs": "stopped after 3 s", "next": "done"}
    assert "    begun" in summary
    assert "    still here" in summary
    assert_dead(tmp_path / "child")


def assert_dead(child):
    """The process whose number is in this file; it may take a moment."""
    status = Path(f"/proc/{child.read_text()}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "Z (zombie)" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_part_begins_without_time(suite):
    code, results, _ = suite(Part("late", 30, python("")), flags=("--minutes", "0.1"))
    assert code == 0
    assert outcomes(results) == {"late": "skipped: no time left; --only late with another --out runs it alone"}


def test_nothing_is_left_of_an_earlier_call(suite, tmp_path):
    for left in (gpu_suite.RUN / "metrics.jsonl", gpu_suite.NUMBERS / "one.json"):
        left.parent.mkdir(parents=True)
        left.write_text('{"rows": "old"}')
    _, results, _ = suite(Part("one", 30, python("")))
    assert "rows" not in results["parts"]["one"]
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_only_the_parts_asked_for(suite):
    _, results, _ = suite(Part("one", 30, python("")), Part("two", 30, python("")), flags=("--only", "two"))
    assert outcomes(results) == {"two": "done"}


def test_too_large_a_file_is_not_kept(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "MOST_BYTES", 1000)
    large = python(f"open({str(tmp_path / 'out' / 'trace.json.gz')!r}, 'wb').write(bytes(1001))")
    suite(Part("large", 30, large))
    assert not (tmp_path / "out" / "trace.json.gz").exists()


def test_every_command_is_there_and_leaves_few_files(tmp_path):
    """Modules exist; all that may lie in DIR is eight files."""
    args = argparse.Namespace(out=tmp_path, data_dir=tmp_path, quick=False, limits=1.0)
    written = {"summary.md", "results.json", *(name.split("/")[-1] for name in gpu_suite.KEPT_OF_RUN)}
    for part in gpu_suite.PARTS:
        command = part.command(args)
        if command is None:
            continue
        if command[1] == "-m":
            assert importlib.util.find_spec(command[2]), part.name
        for argument in command:
            if argument.startswith("tests/"):
                assert (gpu_suite.ROOT / argument).exists()
            if argument.startswith(str(tmp_path)):
                written.add(argument.removeprefix(f"{tmp_path}/"))
    assert len(written) <= 8, written


def test_what_no_gpu_has_run_is_within_the_time_for_all():
    """Nine minutes by default; what comes after has what is left of them."""
    doctor, *beside, step, trace = gpu_suite.PARTS[:6]
    assert [part.name for part in beside if part.beside] == ["compile", "capture_tests", "op_tests"]
    assert [part.name for part in gpu_suite.PARTS if not part.beside][:3] == ["doctor", "step", "trace"]
    assert doctor.seconds + max(part.seconds for part in beside) + step.seconds + trace.seconds <= 540


@pytest.mark.parametrize("limits", [1.0, 2.0])
def test_the_step_part_has_time_to_time_what_it_started(tmp_path, limits):
    """The last row that it starts may compile for a minute, or two on a slow machine."""
    (part,) = (part for part in gpu_suite.PARTS if part.name == "step")
    command = part.command(argparse.Namespace(out=tmp_path, data_dir=tmp_path, quick=False, limits=limits))
    started_by = float(command[command.index("--start-seconds") + 1])
    assert 100 * limits <= started_by <= (part.seconds - 90) * limits


@pytest.mark.slow
def test_the_real_suite_runs_through_without_a_gpu(tmp_path):
    """Minutes: one compiled step, one short run, on the digits."""
    prepare = [sys.executable, "-m", "ali_fast", "prepare", "digits", "--data-dir", str(tmp_path / "data")]
    subprocess.run(prepare, check=True, cwd=gpu_suite.ROOT, timeout=120)
    command = [sys.executable, "-m", "profiles.gpu_suite", "--quick", "--out", str(tmp_path / "out")]
    subprocess.run([*command, "--data-dir", str(tmp_path / "data")], check=True, cwd=gpu_suite.ROOT, timeout=590)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    needs_gpu = {part.name for part in gpu_suite.PARTS if part.needs_gpu}
    said = outcomes(results)
    assert {name for name, state in said.items() if state == "skipped: needs a GPU"} == needs_gpu
    assert {name for name, state in said.items() if state == "done"} == said.keys() - needs_gpu
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"summary.md", "results.json", "step.png", "metrics.jsonl", "samples.png", "trace.json.gz"}
    assert len(names) <= 8


def test_files_of_the_user_stay(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "MOST_BYTES", 1000)
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "theirs.pt").write_bytes(bytes(2000))
    (tmp_path / "out" / "dangling").symlink_to(tmp_path / "nowhere")
    suite(Part("one", 30, python("")))
    assert (tmp_path / "out" / "theirs.pt").stat().st_size == 2000
