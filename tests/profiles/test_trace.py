from types import SimpleNamespace

import pytest
import torch

from ali_fast import decide, presets, process
from profiles import report, trace, waterfall
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
        monkeypatch.setattr(waterfall, name, lambda *_: pytest.fail("counted"))
    row = trace.as_train(presets.resolve("digits"), 4, torch.device("cpu"))
    assert row.name == "compiled (as train)"


def test_a_gpu_on_which_nothing_was_recorded_is_said(monkeypatch, capsys):
    """CUPTI is another profiler's, or nobody's."""
    device, call = torch.device("cuda"), lambda: None
    monkeypatch.setattr(decide, "device", lambda name: SimpleNamespace(device=device))
    monkeypatch.setattr(process, "set_up", lambda device: None)
    monkeypatch.setattr(report, "header", lambda device: {"device": "a GPU", "versions": {}, "command": ""})
    monkeypatch.setattr(trace, "as_train", lambda *_: waterfall.Row("as train", call, call, torch.float32))
    monkeypatch.setattr(trace, "start", lambda *_: waterfall.Running(call, 0))
    on_host = SimpleNamespace(name="launch", device_type=torch.autograd.DeviceType.CPU)
    monkeypatch.setattr(trace, "record", lambda *_: SimpleNamespace(events=lambda: [on_host]))
    with pytest.raises(SystemExit) as end:
        trace.main(["--dataset", "digits"])
    assert end.value.code == 2
    assert "recorded nothing on the GPU" in capsys.readouterr().err
