import pytest
import torch


def pytest_collection_modifyitems(items):
    """Tests that need a GPU are skipped where there is none; `pytest -m gpu` runs only them."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
