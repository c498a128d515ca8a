"""What mutations.py, which is run by hand, would change is there to be changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, ROOT, mutate


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.module}.{m.function}-{m.kind}")
def test_each_mutation_fits_once(mutation):
    text = (ROOT / "csrc_triton" / f"{mutation.module}.py").read_text()
    assert mutate(text, mutation) != text


def test_the_table_is_read_without_turning_the_interpreter_on():
    """It would be on for whatever test comes after."""
    code = "import os, mutations; print(os.environ.get('TRITON_INTERPRET'))"
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "None\n"
