"""Text from outside, a server's or an archive's, for an error of one line."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with a "?" for each character that could move the cursor, ring, or is not to be seen."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
