import io
import sys

import pytest
from rich.console import Console

from ali_fast.live import LiveLine, clock

LINE = {
    "step": 20,
    "images_per_second": 1234.5,
    "loss_d": 1.2345,
    "loss_g": 1.5,
    "score_data": 0.61,
    "score_sample": 0.39,
    "sigma": 0.4,
    "reconstruction_error": 0.0312,
    "data_wait_share": 0.02,
}
WON = {"score_data": 0.999, "score_sample": 0.001, "winner": "discriminator"}


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3599, 3600, 90061)] == [
        "0:00",
        "1:00",
        "1:01",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]


def lines(*ticks, terminal=False):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with LiveLine(console, total_steps=100, steps_per_epoch=10, start_step=0) as live:
        live.advance(1)
        for tick in ticks:
            live.advance(tick["step"])
            live.tick(tick)
    return out.getvalue()


def test_a_plain_line_a_tick():
    (line,) = lines(LINE).splitlines()
    for part in (
        "epoch 2.0/10.0",
        "step 20/100",
        "left",
        "1,234 images/s",
        "L_d 1.234",
        "L_g 1.500",
        "D(x,z_hat) 0.61",
    ):
        assert part in line
    for part in ("D(x_tilde,z) 0.39", "sigma 0.400", "rec 0.0312", "data wait 2%"):
        assert part in line


def test_steps_skipped_in_fp16_are_shown():
    assert "skipped 3" in lines(LINE | {"skipped_steps": 3.0})
    assert "skipped" not in lines(LINE | {"skipped_steps": 0.0})


def test_a_won_game_is_said_once_until_it_is_open_again():
    said = lines(LINE, LINE | WON, LINE | WON, LINE, LINE | WON)
    assert said.count("the discriminator has won") == 2


def test_an_objective_says_what_it_has():
    base = {name: LINE[name] for name in ("step", "images_per_second", "data_wait_share")}
    gan = base | {name: LINE[name] for name in ("loss_d", "loss_g", "score_data", "score_sample")}
    assert "L_g 1.500  D(x) 0.61  D(x_tilde) 0.39  data wait" in lines(gan)
    assert "(mean D(x) 0.999, mean D(x_tilde) 0.001)" in lines(gan | WON)
    vae = base | {"loss": -100.5, "reconstruction": -123.0, "kl": 22.5, "sigma": 0.4, "reconstruction_error": 0.0312}
    assert "loss -100.500  -log p(x|z) -123.00  KL 22.50  sigma 0.400  rec 0.0312  data wait" in lines(vae)
    classes = gan | {"loss_labels": 2.125, "held_out_error": 0.125}
    assert "D(x_tilde) 0.39  L_labels 2.125  held-out error 12.5%  data wait" in lines(classes)


def test_on_a_terminal():
    assert "D(x,z_hat) 0.61" in lines(LINE, terminal=True)


def test_whatever_happens_the_terminal_is_as_it_was():
    stdout, out = sys.stdout, io.StringIO()
    console = Console(file=out, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), LiveLine(console, total_steps=100, steps_per_epoch=10, start_step=0):
        raise KeyboardInterrupt
    assert sys.stdout is stdout
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")  # the cursor is shown


def test_the_sessions_end_counts_from_its_first_step(hand_clock):
    """As the loop's does."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    live = LiveLine(console, total_steps=10**6, steps_per_epoch=10, start_step=0, session_seconds=120.0)
    hand_clock.now += 70.0  # it compiled
    live.advance(1)
    hand_clock.now += 10.0
    live.advance(20)
    live.tick(LINE)
    assert "1:50 left" in out.getvalue()


def test_of_a_resumed_run_only_this_sessions_steps_are_a_measure_of_what_is_left(hand_clock):
    out = io.StringIO()
    live = LiveLine(Console(file=out, width=200), total_steps=1000, steps_per_epoch=10, start_step=700)
    live.advance(701)
    hand_clock.now += 10.0
    live.tick({"step": 711})
    assert "step 711/1000  4:49 left" in out.getvalue()


def test_the_first_step_has_no_speed():
    line = {name: value for name, value in LINE.items() if name not in ("images_per_second", "data_wait_share")}
    assert "images/s" not in lines(line)
