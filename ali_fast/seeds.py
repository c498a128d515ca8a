"""Seeds by name. Two generators of one kind that start from the same number draw the same stream: a run's seed alone
would give its first noise the numbers of its weights. Standard library only.
"""

from __future__ import annotations

import hashlib


def seed_of(*names: object) -> int:
    """A seed below 2^63 for what is named, unrelated to any other's."""
    digest = hashlib.sha256(" ".join(map(str, ("ali-fast", *names))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
