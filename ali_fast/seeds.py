"""Seeds by name. Two generators of one kind that start from the same number draw the same stream: a run's seed alone
would give its first noise the numbers of its weights. Standard library and errors only.
"""

from __future__ import annotations

import hashlib

from ali_fast.errors import InputError


def seed_of(*names: object) -> int:
    """A seed below 2^63 for what is named, unrelated to any other's."""
    digest = hashlib.sha256(" ".join(map(str, ("ali-fast", *names))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def check_seed(seed: int) -> None:
    """Raises InputError for a `--seed` that torch's generators do not take."""
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: must be from 0 to 2^63 - 1")
