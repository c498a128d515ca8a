import json
import struct

import torch
from matplotlib.axes import Axes

from profiles import report


def test_versions_device_and_command_stand_on_top(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["somewhere/bench.py", "--dataset", "a b"])
    head = report.header(torch.device("cpu"))
    report.print_header(head)
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed
    assert head["device"].endswith(f"{torch.get_num_threads()} threads")
    assert printed.splitlines()[0] == head["device"]
    assert printed.rstrip().endswith("--dataset 'a b'")


def test_json_holds_the_head_the_rows_and_more(tmp_path):
    path = tmp_path / "new" / "numbers.json"
    report.write_json(path, {"device": "d", "versions": {}}, [{"name": "a", "step_ms": 1.5}], preset="digits")
    written = json.loads(path.read_text())
    assert written == {
        "device": "d",
        "versions": {},
        "preset": "digits",
        "rows": [{"name": "a", "step_ms": 1.5}],
    }


def test_an_error_in_short():
    assert report.in_short(ValueError("what was wrong\nand where")) == "ValueError: what was wrong"
    assert len(report.in_short(ValueError("x" * 10_000))) < 210


def test_a_chart_is_a_png(tmp_path):
    for spreads in ([0.1, 0.2], None):
        path = tmp_path / "new" / f"{spreads is None}.png"
        report.bar_chart(path, "title", ["first", "second"], [2.0, 1.0], spreads, "ms")
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 500
        assert height > 100


def test_an_error_bar_is_as_long_as_the_spread(tmp_path, monkeypatch):
    def barh(axes, *arguments, xerr, **options):
        drawn.append(xerr)
        return draw(axes, *arguments, xerr=xerr, **options)

    drawn, draw = [], Axes.barh
    monkeypatch.setattr(Axes, "barh", barh)
    report.bar_chart(tmp_path / "chart.png", "title", ["first", "second"], [2.0, 1.0], [0.1, 0.2], "ms")
    assert drawn == [[0.05, 0.1]]  # to each side
