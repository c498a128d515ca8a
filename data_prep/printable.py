"""Text from outside, a server's, an archive's or a path's, for one line on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with a "?" for each character that could move the cursor, ring, or not be encoded (what is no Unicode)."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
