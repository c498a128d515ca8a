"""The helpers beside this file (comparing, check_*) are importable by name; README.md explains the four suites."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def unwritten_is_nan():
    """What a kernel leaves unwritten shows: new tensors are full of NaN, and of the largest integers."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
