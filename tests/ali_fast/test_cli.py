import errno
import json
import signal
import subprocess
import sys
import time

import pytest

from ali_fast import cli, commands
from ali_fast.errors import DivergedError, InputError, Interrupted


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "ali_fast", *arguments], capture_output=True, text=True, **options)


def test_help_is_quick_and_imports_nothing_heavy():
    started = time.process_time()
    code = "import sys\nfrom ali_fast.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)"
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # seconds of CPU
    assert time.process_time() - started < 1.0
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            cli.parse([name, "--help"])
        assert stopped.value.code == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "--dataset", "digits", "--bogus", "1"]])
def test_what_is_no_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(arguments)
    assert stopped.value.code == 2


def test_train_flags_are_the_configurations():
    import dataclasses

    from ali_fast.config import TrainConfig

    parsed = cli.parse(["train", "--dataset", "digits", "--no-compile", "--amp", "--minutes", "1.5", "--keep", "2"])
    given = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(TrainConfig)}
    assert TrainConfig(**given) == TrainConfig(dataset="digits", compile=False, amp=True, minutes=1.5, keep=2)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("one\n  two"), 2, "ali-fast: one two\n"),
        (DivergedError("not finite at step 3"), 1, "ali-fast: not finite at step 3\n"),
        (Interrupted(15), 143, "ali-fast: stopped by SIGTERM\n"),
        (KeyboardInterrupt(), 130, "ali-fast: stopped by SIGINT\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "ali-fast: No space left on device\n"),
        (FileExistsError(errno.EEXIST, "File exists", "runs"), 2, "ali-fast: File exists: runs\n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "r"), 2, "ali-fast: File name too long: r\n"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "ali-fast: Permission denied: runs\n"),
    ],
)
def test_how_a_command_ends(error, code, message, capsys, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(commands.Doctor, "run", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == message


def test_sigterm_means_to_the_caller_what_it_meant_before(monkeypatch):
    monkeypatch.setattr(commands.Doctor, "run", lambda self: None)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["doctor"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    def fail(self):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(commands.Doctor, "run", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(OSError, match="Bad file"):
        cli.main(["doctor"])


def test_a_real_process_says_one_line_and_writes_json(tmp_path):
    done = run("describe", "--dataset", "cifar10", "--json", str(tmp_path / "d.json"))
    assert done.returncode == 0
    assert json.loads((tmp_path / "d.json").read_text())["encoder"]["parameters"] == 3_118_496
    done = run("train", "--dataset", "cifar-10")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m ali_fast describe --dataset imagenet64 | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""
