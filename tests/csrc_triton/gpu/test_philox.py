"""The random stream on the device."""

import pytest
from check_philox import SHAPES, check_masks, check_normals


@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("shape", SHAPES)
def test_masks(shape, slot):
    check_masks(shape, slot, "cuda")


@pytest.mark.parametrize("slot", range(4))
def test_normals(slot):
    check_normals(slot, "cuda")
