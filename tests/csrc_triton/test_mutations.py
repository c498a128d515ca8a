"""What mutations.py, which is run by hand, would change is there to be changed."""

import pytest
from mutations import MUTATIONS, ROOT, mutate


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.module}.{m.function}-{m.kind}")
def test_each_mutation_fits_once(mutation):
    text = (ROOT / "csrc_triton" / f"{mutation.module}.py").read_text()
    assert mutate(text, mutation) != text
