import pytest
import torch

from ali_fast import presets
from profiles import bench_step, trace
from profiles.trace import Span, by_name, gaps


def test_gaps_lie_between_what_overlaps_nothing():
    spans = [Span("a", 0, 10), Span("b", 5, 8), Span("c", 12, 20), Span("d", 19, 30), Span("a", 33, 40)]
    found = gaps(spans)
    assert (found.busy, found.wall) == (35, 40)
    assert dict(found.between) == {("a", "c"): 2, ("d", "a"): 3}


def test_totals_by_name_longest_first():
    assert by_name([Span("a", 0, 10), Span("b", 10, 30), Span("a", 40, 45)]) == [("b", 1, 20), ("a", 2, 15)]


def test_nothing_is_counted_that_is_not_shown(monkeypatch):
    for name in ("usual_gflop", "step_gflop"):
        monkeypatch.setattr(bench_step, name, lambda *_: pytest.fail("counted"))
    row = trace.as_train(presets.resolve("digits"), 4, torch.device("cpu"))
    assert row.name == "compiled (as train)"
