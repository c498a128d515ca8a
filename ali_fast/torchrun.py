"""What torchrun tells the processes that it starts, by their environment. Standard library only."""

from __future__ import annotations

import os

from ali_fast.errors import InputError


def started() -> bool:
    """Whether it started this process beside others. LOCAL_RANK is its own; RANK and WORLD_SIZE others set as well.

    Raises InputError where the rest of what it tells is missing, or is none.
    """
    if "LOCAL_RANK" not in os.environ:
        return False
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not os.environ.get(name, "").isdecimal():
            raise InputError(
                f"LOCAL_RANK is set, as torchrun does, and {name} is no number: start with torchrun, or unset it"
            )
    return int(os.environ["WORLD_SIZE"]) > 1


def first_process() -> bool:
    """Whether this one speaks and writes for all that were started together: see ali_fast.parallel."""
    return not started() or os.environ["RANK"] == "0"
