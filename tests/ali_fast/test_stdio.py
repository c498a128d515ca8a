"""A command on a stream that is full, narrow, without Unicode, or on a terminal that is closed under it."""

import errno
import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from ali_fast import cli, stdio

pytestmark = pytest.mark.usefixtures("hangs_up")

COMMAND = [sys.executable, "-m", "ali_fast"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["describe", "--dataset", "digits"]])
def test_a_full_standard_output_is_said(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert (ended.returncode, ended.stderr) == (2, "ali-fast: No space left on device: standard output\n")


def test_another_files_full_disk_is_not_standard_outputs(monkeypatch, capsys):
    def fail(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.commands.Doctor, "run", fail)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "ali-fast: No space left on device\n"


def test_with_both_full_the_code_tells():
    with open("/dev/full", "w") as full:
        assert subprocess.run([*COMMAND, "describe", "--dataset", "none"], stdout=full, stderr=full).returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["mixture", "--help"]])
def test_help_without_unicode(arguments):
    ended = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert ended.returncode == 0, ended.stderr
    assert "usage: ali-fast" in ended.stdout


@pytest.mark.parametrize("columns", [1, 7, 19])
def test_help_on_a_narrow_terminal_ends(columns):
    ended = subprocess.run(
        [*COMMAND, "train", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    assert ended.returncode == 0
    assert "--dataset" in ended.stdout


def test_what_a_stream_cannot_encode_is_a_question_mark(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    stdio.take_any_text()
    print("5 ± 1, \udce9", flush=True)
    assert bytes_.getvalue() == b"5 ? 1, ?\n"


SAYS = """
import signal, sys, time
from ali_fast.signals import Signals
with Signals() as signals:
    signals.arm()
    print("begun", flush=True)
    while signals.received is None:
        time.sleep(0.01)
    print("saving", flush=True)
    print("saving", file=sys.stderr, flush=True)
sys.exit(100 + signals.received)
"""


def test_a_terminal_that_is_closed_is_written_to_no_more(within):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", SAYS])
    with within(60):
        while b"begun" not in os.read(terminal, 1024):
            time.sleep(0.01)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 100 + signal.SIGHUP
