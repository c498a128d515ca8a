"""The library that pretends: where it lies, and when it is compiled. That it works, test_whole_step sees."""

from pathlib import Path

import pytest

from profiles import pretend

ROOT = Path(__file__).parents[2]


def test_the_library_is_built_inside_the_checkout():
    """Not where other users can write."""
    assert pretend.BUILT.is_relative_to(ROOT / "build")


COMPILER = """#!/bin/sh
echo called >>{calls}
while [ "$1" != -o ]; do shift; done
echo built >"$2"
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A file with one line for each call of the compiler, which here only writes what is asked for."""
    calls, program = tmp_path / "calls", tmp_path / "compiler"
    program.write_text(COMPILER.format(calls=calls))
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setattr(pretend, "BUILT", tmp_path / "build" / "pretend")
    return calls


def test_it_is_compiled_once_and_left_whole(calls, tmp_path):
    first, second = (pretend._build(tmp_path) for _ in range(2))
    assert first == second
    assert first.read_text() == "built\n"
    assert list(first.parent.iterdir()) == [first]
    assert len(calls.read_text().splitlines()) == 1
