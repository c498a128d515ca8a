import dataclasses
import errno
import importlib.metadata
import json
import signal
import subprocess
import sys

import pytest

from ali_fast import cli, commands
from ali_fast.errors import DivergedError, InputError, Interrupted
from ali_fast.flags import write_json

pytestmark = pytest.mark.usefixtures("hangs_up")


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "ali_fast", *arguments], capture_output=True, text=True, **options)


def test_help_imports_little_and_nothing_heavy():
    code = "import sys\nfrom ali_fast.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)\nprint(len(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr) < 300  # modules: torch has 1,100
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            cli.parse([name, "--help"])
        assert stopped.value.code == 0
        assert capsys.readouterr().out


def test_its_version_is_the_packages(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ali-fast {importlib.metadata.version('ali-fast')}\n"


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "--dataset", "digits", "--bogus", "1"]])
def test_what_is_no_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(arguments)
    assert stopped.value.code == 2


def test_train_flags_are_the_configurations():
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
        (OSError(errno.EFBIG, "File too large"), 2, "ali-fast: File too large\n"),
    ],
)
def test_how_a_command_ends(error, code, message, capsys, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(commands.Doctor, "run", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_means_to_the_caller_what_it_meant_before(signum, monkeypatch):
    inside = []
    monkeypatch.setattr(commands.Doctor, "run", lambda self: inside.append(signal.getsignal(signum)))
    before = signal.getsignal(signum)
    assert cli.main(["doctor"]) == 0
    assert signal.getsignal(signum) is before
    assert inside != [before]


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    def fail(self):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(commands.Doctor, "run", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(OSError, match="Bad file"):
        cli.main(["doctor"])


WITH_JSON = [
    ["prepare", "digits"],
    ["train", "--dataset", "digits"],
    ["describe", "--dataset", "digits"],
    ["reconstruct", "RUN"],
    ["evaluate", "RUN"],
    ["mixture", "run"],
    ["mixture", "search"],
    ["doctor"],
]


def subcommand(arguments):
    command = cli.parse(arguments)
    return type(getattr(command, "command", command))


def test_every_command_with_json_is_listed_here():
    from ali_fast.mixture.commands import Figure, Run, Search

    every = {*cli.COMMANDS.values(), Figure, Run, Search}
    given = {kind for kind in every if "json" in {field.name for field in dataclasses.fields(kind)}}
    assert {subcommand(arguments) for arguments in WITH_JSON} == given


@pytest.mark.parametrize("arguments", WITH_JSON, ids=" ".join)
def test_a_json_that_could_not_be_written_is_said_before_the_work(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    worked = []
    monkeypatch.setattr(subcommand(arguments), "run", lambda self: worked.append(self))
    assert cli.main([*arguments, "--json", "nope/x.json"]) == 2
    missing = "--json nope/x.json: there is no folder nope; make it, or name another"
    assert capsys.readouterr().err == f"ali-fast: {missing}\n"
    (tmp_path / "there").mkdir()
    assert cli.main([*arguments, "--json", "there"]) == 2
    assert "--json there: is a folder; name a file, such as there/result\n" in capsys.readouterr().err
    assert not worked
    for fine in ("x.json", "there/x.json", str(tmp_path / "x.json"), "/dev/stdout", "/dev/null"):
        assert cli.main([*arguments, "--json", fine]) == 0
    assert len(worked) == 5


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["train", "--dataset", "digits"], "runs/digits/line.json"),
        (["train", "--dataset", "digits", "--run-dir", "a/b"], "a/b/line.json"),
        (["mixture", "run"], "runs/mixture/more.json"),
        (["prepare", "digits", "--data-dir", "d"], "d/digits/all.json"),
    ],
)
def test_a_json_may_go_where_the_command_makes_a_folder(arguments, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subcommand(arguments), "run", lambda self: write_json(self.json, 7))
    assert cli.main([*arguments, "--json", path]) == 0
    assert (tmp_path / path).read_text() == "7\n"


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
