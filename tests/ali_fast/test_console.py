"""A reader that goes away does not end what is read."""

import os
import subprocess
import sys

PROGRAM = """
import sys
from ali_fast.console import Steady
console = Steady()
sys.stdin.read()  # until the reader is gone
for _ in range(3):
    console.print("a line")
print("went on", file=sys.stderr)
"""


def test_it_falls_silent_when_its_reader_is_gone():
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.close(reader)
    _, err = process.communicate("", timeout=60)
    assert process.returncode == 0
    assert err == "went on\n"
