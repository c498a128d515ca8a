import json
import math

import pytest

from ali_fast.metrics import MetricsFile, TensorBoard, read_metrics, winner


@pytest.mark.parametrize(
    ("score_data", "score_sample", "expected"),
    [
        (0.991, 0.009, "discriminator"),
        (0.009, 0.991, "generator"),
        (0.99, 0.009, None),  # the bounds themselves are not beyond them
        (0.991, 0.01, None),
        (0.5, 0.5, None),
        (0.999, 0.999, None),
    ],
)
def test_winner(score_data, score_sample, expected):
    assert winner(score_data, score_sample) == expected


def write(path, steps, *, resume_at=0, said=()):
    warnings = []
    file = MetricsFile(path, step=resume_at, warn=warnings.append)
    assert [said in warning for said, warning in zip(said, warnings, strict=True)] == [True] * len(said), warnings
    for step in steps:
        file.append({"step": step, "loss_d": step / 2})
    file.close()


def test_each_tick_once_after_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20, 30, 40])
    write(path, [30, 40, 50], resume_at=20)  # killed at 40 with a checkpoint of 20
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("tail", [b'{"step": 30, "lo', b"{", b'{"step": 25}'])
def test_a_half_written_tail_is_cut_without_a_word(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20])
    with path.open("ab") as file:
        file.write(tail)
    write(path, [30], resume_at=25)
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


BAD = [b"\xff\x00garbage\n", b'{"step": 15, "lo\n', b"[]\n", b"\n", b'{"loss_d": 1.0}\n']


@pytest.mark.parametrize("bad", BAD)
def test_a_damaged_line_in_the_middle_costs_that_line_alone_and_is_kept(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20, 30, 40])
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + bad + rest)
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30, 40]
    write(path, [40, 50], resume_at=30, said=["damaged lines (1) are moved to metrics.jsonl.damaged"])
    assert [json.loads(raw)["step"] for raw in path.read_bytes().splitlines()] == [10, 20, 30, 40, 50]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == bad
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("bad", [*BAD, b"\x00\x00"])
def test_a_damaged_end_is_kept_and_a_second_one_after_it(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20])
    for step in (30, 40):
        with path.open("ab") as file:
            file.write(bad)
        write(path, [step], resume_at=step - 10, said=["damaged lines (1)"])
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30, 40]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == 2 * bad


def test_where_the_file_is_gone_the_curves_begin_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [30], resume_at=20, said=[f"{path} is not there: the run's curves begin anew at step 20"])
    assert [line["step"] for line in read_metrics(path)] == [30]


def test_a_tick_is_on_the_disk_before_the_training_goes_on(tmp_path, disk):
    file = MetricsFile(tmp_path / "metrics.jsonl", step=0, warn=print)
    for _ in range(2):
        file.append({"step": 10})  # 13 bytes with its end
    assert disk == [("fsync", "metrics.jsonl", 13), ("fsync", "metrics.jsonl", 26)]
    file.close()


def test_a_file_with_nothing_to_drop_is_not_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20])
    before = path.stat().st_ino
    write(path, [30], resume_at=20)
    assert path.stat().st_ino == before


def test_fresh_run_over_an_old_file_starts_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20])
    write(path, [10], resume_at=0)
    assert [line["step"] for line in read_metrics(path)] == [10]


def test_not_finite_becomes_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, step=0, warn=print)
    file.append({"step": 1, "step_ms": math.nan, "loss_d": math.inf, "loss_g": 0.5, "winner": None})
    file.close()
    assert json.loads(path.read_text()) == {"step": 1, "step_ms": None, "loss_d": None, "loss_g": 0.5, "winner": None}


def test_tensorboard_drops_what_a_killed_process_wrote(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (7, 10, 20)), (0, (10, 20, 30)), (20, (30, 40))):
        board = TensorBoard(tmp_path, step=start)
        for step in steps:
            board.add_tick({"step": step, "loss_d": float(step + start)})
        board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss_d")] == [(10, 10.0), (20, 20.0), (30, 50.0), (40, 60.0)]
