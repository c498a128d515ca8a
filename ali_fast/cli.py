"""`ali-fast`: the subcommands of `commands` and its like, and how they end.

Exit codes: 0 done; 1 the training diverged; 2 the user's mistake, said on one line of stderr (a flag that is not there,
in tyro's frame, with those that are like it); 130, 143 and 129 stopped by SIGINT, SIGTERM or SIGHUP, after saving.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import signal
import sys
from typing import Annotated, Any

import tyro

import ali_fast
from ali_fast import commands, run_commands, stdio
from ali_fast.errors import DivergedError, InputError, Interrupted
from ali_fast.evaluate.commands import Evaluate
from ali_fast.flags import check_outputs
from ali_fast.mixture.commands import Mixture
from ali_fast.signals import to_stop

COMMANDS = {
    "prepare": commands.Prepare,
    "train": commands.Train,
    "describe": commands.Describe,
    "sample": run_commands.Sample,
    "reconstruct": run_commands.Reconstruct,
    "interpolate": run_commands.Interpolate,
    "traverse": run_commands.Traverse,
    "encode": run_commands.Encode,
    "evaluate": Evaluate,
    "export": run_commands.Export,
    "mixture": Mixture,
    "doctor": commands.Doctor,
}
USERS_ERRNO = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
    }
)


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    stdio.take_any_text()
    before = {signum: signal.signal(signum, _stopped) for signum in to_stop()}
    try:
        if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
            print(f"ali-fast {importlib.metadata.version('ali-fast')}")
        else:
            command = parse(arguments)
            check_outputs(getattr(command, "command", command))  # mixture's flags are its own subcommands'
            command.run()
        sys.stdout.flush()  # a full disk is said below
    except InputError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:  # the reader of our output, head or less, has seen enough
        stdio.fall_silent(stdio.STDOUT)
        return 0
    except OSError as error:
        if error.errno not in USERS_ERRNO:
            raise
        place = error.filename or ("standard output" if stdio.stdout_fails() else None)
        if isinstance(place, bytes):  # TensorBoard's
            place = os.fsdecode(place)
        return _fail(f"{error.strerror}{f': {place}' if place else ''}", 2)
    except DivergedError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("stopped by SIGINT", 130)
    except Interrupted as error:
        return _fail(str(error), error.exit_code)
    finally:  # our caller's children are to die of it again
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return 0


def parse(arguments: list[str] | None = None) -> Any:
    """The subcommand as its dataclass. Exits, as tyro does, on `--help` and on flags that are not there."""
    stdio.widen()
    choices: Any = None
    for name, command in COMMANDS.items():
        choice = Annotated[command, tyro.conf.subcommand(name=name, prefix_name=False)]  # type: ignore[valid-type]
        choices = choice if choices is None else choices | choice
    title = (ali_fast.__doc__ or "").splitlines()[0]
    try:
        return tyro.cli(choices, prog="ali-fast", description=title, args=arguments, config=(tyro.conf.DisallowNone,))
    except SystemExit:
        sys.stdout.flush()  # the help: what fails is said by `main`
        raise


def _fail(message: str, code: int) -> int:
    stdio.leave_dead_terminals()
    try:
        print(f"ali-fast: {' '.join(message.split())}", file=sys.stderr)
    except OSError:  # nobody is told then, but by the code
        stdio.fall_silent(stdio.STDERR)
    return code


def _stopped(signum: int, _frame: object) -> None:
    raise Interrupted(signum)
