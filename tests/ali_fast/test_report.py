"""The report holds what the run holds, and asks for nothing outside itself."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ali_fast import figures, report
from ali_fast.config import TrainConfig
from ali_fast.objective import METRICS
from ali_fast.run_directory import RunDirectory


def tick(step, **more):
    values = {"step": step, "epoch": step / 10, "seconds": step * 30.0, "loss_d": 1.0 / step, "loss_g": 0.5 + step}
    return values | {"images_per_second": 100.0 + step, "step_ms": 5.0, "data_wait_share": 0.25} | more


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.adopt(TrainConfig(dataset="digits", run_dir=run.path).resolved())
    run.environment.write_text(json.dumps({"cpu": "Some <CPU> & co", "packages": {"torch": "2.99"}, "gpus": []}))
    run.metrics.write_text("".join(json.dumps(tick(step)) + "\n" for step in range(10, 200, 10)))
    sheet = np.zeros((20, 30, 1), np.uint8)
    for name in ("samples", "reconstructions", "interpolations"):
        figures.write_png(sheet, run.figures / f"{name}.png")
    figures.write_webp([sheet, sheet + 200], run.figures / "interpolations.webp")
    run.evaluation.mkdir()
    columns, rows, paper = ("features", "error"), [("ours", "17.3 +- 0.2")], [("ALI, SVHN", "19.14 +- 0.50")]
    result = {"task": "svm", "about": "L2-SVM on digits", "columns": columns, "rows": rows, "paper": paper}
    (run.evaluation / "svm.json").write_text(json.dumps(result))
    return run


class Page(HTMLParser):
    """Every tag's attributes, the text outside <style>, and that tags close in order."""

    VOID = ("meta", "link", "img", "br", "line")

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_it_asks_for_nothing_outside_itself(run):
    text = report.write(run).read_text()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action", "style", "background"):
            if name in attributes:
                assert attributes[name].startswith("data:"), (tag, attributes)
    assert not re.search(r"url\(|@import|https?:|//\w", text)
    policy = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme: dark" in text


def test_it_holds_what_the_run_holds(run):
    page = Page(report.write(run).read_text())
    shown = [a["src"].split(",") for tag, a in page.tags if tag == "img"]
    files = ["samples.png", "reconstructions.png", "interpolations.png", "interpolations.webp"]
    assert [base64.b64decode(data) for _, data in shown] == [(run.figures / name).read_bytes() for name in files]
    assert [kind for kind, _ in shown] == ["data:image/png;base64"] * 3 + ["data:image/webp;base64"]
    for words in (
        "step 190",
        "epoch 19.0",
        "trained for 1:35:00",
        "L_d 0.00526",
        "images per second 200 (110 to 290 over 19 ticks)",
        "share of time waiting for data 25.0%",
        "ours 17.3 +- 0.2 in the paper ALI, SVHN 19.14 +- 0.50",
        "batch size 100",
        "cpu Some <CPU> & co",
        "packages.torch 2.99",
    ):
        assert words in page.text, words
    assert len([a for tag, a in page.tags if tag == "svg"]) == 2  # losses and speed: the others have no values


def test_curves_are_where_their_values_are():
    chart = report.chart("t", {"a": [(0.0, 0.0), (5.0, 10.0), (10.0, 5.0)], "b": [(0.0, 2.5), (10.0, 2.5)]})
    a, b = ([tuple(map(float, p.split(","))) for p in c.path[1:].split()] for c in chart.curves)
    height, top = report.HEIGHT - report.TOP - report.BOTTOM, report.HEIGHT - report.BOTTOM
    left, width = report.LEFT, report.WIDTH - report.LEFT - report.RIGHT
    assert [x for x, _ in a] == pytest.approx([left, left + width / 2, left + width])
    assert [y for _, y in a] == pytest.approx([top, top - height * 10 / 10.5, top - height * 5 / 10.5], abs=0.06)
    assert [y for _, y in b] == pytest.approx([top - height * 2.5 / 10.5] * 2, abs=0.06)
    assert [m.text for m in chart.across] == ["0", "5", "10"]
    assert [m.at for m in chart.across] == pytest.approx([left, left + width / 2, left + width])


@pytest.mark.parametrize(
    ("more", "names"), [({"sigma": 0.3}, ["D(x,z_hat)", "D(x_tilde,z)"]), ({}, ["D(x)", "D(x_tilde)"])]
)
def test_scores_are_of_what_d_sees(more, names):
    ticks = [tick(step, score_data=0.6, score_sample=0.4, **more) for step in (10, 20)]
    (scores,) = [chart for chart in report.charts(ticks) if chart.title == "Scores of D"]
    assert [curve.label for curve in scores.curves] == names


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (-3, 8, [0, 5]), (0.012, 0.021, [0.015, 0.02]), (990, 4100, [1000, 2000, 3000, 4000])],
)
def test_round_numbers(low, high, expected):
    assert report.round_numbers(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high"), [(0.02355, 0.02358), (0, 1), (-3e-7, 4e-7), (1000, 250_000), (12345.1, 12345.9), (5, 5)]
)
def test_marks_of_an_axis_can_be_told_apart_and_are_what_they_say(low, high):
    values = report.round_numbers(low, high)
    said = [mark.text for mark in report.marks(values, lambda x: x)]
    assert len(set(said)) == len(said)
    assert [float(text.replace(",", "")) for text in said] == pytest.approx(values, rel=1e-12, abs=1e-12)


def test_long_runs_are_thinned_and_end_where_they_end():
    points = [(float(i), float(i)) for i in range(5003)]
    path = report.chart("t", {"a": points}).curves[0].path
    assert path.count(",") <= report.MOST_POINTS + 1
    assert path.endswith(report.chart("t", {"a": points[:1] + points[-1:]}).curves[0].path.split()[-1])


def test_a_run_that_has_nothing_yet_and_values_that_are_not_finite(tmp_path, run):
    empty = RunDirectory(tmp_path / "empty")
    empty.path.mkdir()
    assert "empty" in Page(report.write(empty).read_text()).text
    run.metrics.write_text("".join(json.dumps(tick(s, loss_d=None, sigma=0.5)) + "\n" for s in (10, 20)))
    text = Page(report.write(run).read_text()).text
    assert "mean sigma 0.5" in text
    assert "L_d" not in text


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"task": "sv', b"\xff\xfe{}", b"[1]", b'{"columns": [], "rows": 3, "paper": []}', b'{"rows": [1]}'],
    ids=["empty", "cut", "binary", "list", "no table", "no rows"],
)
def test_what_cannot_be_read_is_left_out_and_named(run, damage):
    (run.evaluation / "frechet.json").write_bytes(damage)
    run.environment.write_bytes(b"[1]")
    text = Page(report.write(run).read_text()).text
    assert "Left out, because it cannot be read: evaluation/frechet.json, environment.json" in text
    assert "ours 17.3 +- 0.2" in text
    assert "batch size 100" in text


@pytest.mark.parametrize("values", [{"epoch": None}, {"epoch": "1"}, {"loss_d": "much"}, {"sigma": [1]}])
def test_what_is_no_number_of_a_tick_is_left_out(run, values):
    with run.metrics.open("ab") as file:
        file.write(json.dumps(tick(200) | values).encode() + b"\n" + json.dumps(tick(220)).encode() + b"\n")
    assert "step 220" in Page(report.write(run).read_text()).text


def test_ticks_that_are_damaged_are_left_out(run):
    with run.metrics.open("ab") as file:
        file.write(b'{"step": 200, "lo\xff\n{"step": 210, "loss_d": 1.0}\n' + json.dumps(tick(220)).encode() + b"\n")
    assert "step 220" in Page(report.write(run).read_text()).text


@pytest.mark.parametrize("objective", METRICS)
def test_every_objectives_losses_have_a_curve(objective):
    """Each by its name in METRICS, as the ticks have it."""
    ticks = [tick(step) | {"loss_d": None, "loss_g": None} | dict.fromkeys(METRICS[objective], 0.5) for step in (1, 2)]
    shown = {label for chart in report.charts(ticks) if chart.title.startswith("Loss") for label, *_ in chart.curves}
    names = {"loss_d": "L_d", "loss_g": "L_g", "loss_labels": "of the labels", "loss": "loss"}
    names |= {"reconstruction": "-log p(x|z)", "kl": "KL"}
    assert shown == {names[name] for name in METRICS[objective] if name in names}
    assert shown


def test_the_memory_that_a_run_took_is_its_highest_peak():
    """A resumed session begins to count anew."""
    ticks = [tick(10, peak_bytes=2**31), tick(20, peak_bytes=2**30)]
    assert dict(report.speed(ticks))["peak memory on the device"] == "2.00 GiB"
