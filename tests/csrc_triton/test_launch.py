"""What the launchers share."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csrc_triton import batch_norm, bias_act, launch, maps, maxout


@given(st.integers(1, 10**6), st.sampled_from([16, 32, 64]), st.integers(1, 64), st.sampled_from([1, 64, 264]))
def test_row_ranges_cover_all_and_none_is_empty(rows, tile_rows, columns, most):
    split = launch.split_rows(rows, tile_rows, columns, most)
    assert split.rows % tile_rows == 0
    assert (split.parts - 1) * split.rows < rows <= split.parts * split.rows
    assert split.parts <= most


@given(st.integers(1, 5000))
def test_a_tile_holds_whole_philox_groups(channels):
    tile = launch.tile_for(channels)
    assert tile.channels % 8 == 0 and tile.rows * tile.channels == 16 * 32 * tile.warps
    assert tile.channels >= min(channels, 64) and tile.channels < 2 * max(channels, 8)


def test_recording_runs_nothing_and_keeps_the_arguments():
    x = torch.empty(2, 16, 3, 3, device="meta").to(memory_format=torch.channels_last)
    with launch.recorded_launches() as record:
        bias_act.launch_forward(x, None, 0.1, 0, None, 0)
    (one,) = record
    assert one.grid == (1, 1) and one.num_warps == 4
    assert one.arguments["x_ptr"] is x and one.arguments["M"] == 18 and one.arguments["bias_ptr"] is None


def strided(count):
    return torch.randn(2 * count)[::2]


@pytest.mark.parametrize(
    "launches",
    [
        lambda x, c: bias_act.forward_op(x, strided(c), 0.1, 0, None, 0),
        lambda x, c: maxout.forward_op(x, strided(c), 0, False, None, 0),
        lambda x, c: batch_norm.forward_op(x, strided(c), strided(c), 1e-4, 0.1, 0, None, 0),
    ],
    ids=["bias_act", "maxout", "batch_norm"],
)
def test_kernels_get_vectors_whose_elements_are_adjacent(launches, monkeypatch):
    """They read them so, whatever the strides."""
    monkeypatch.setattr(launch, "runs_kernels", lambda x: True)
    with launch.recorded_launches() as record, torch.no_grad():
        launches(torch.randn(2, 16, 3, 3), 16)
    vectors = [t for one in record for t in one.arguments.values() if isinstance(t, torch.Tensor) and t.dim() == 1]
    assert len(vectors) > 0
    assert all(vector.is_contiguous() for vector in vectors)


def test_launchers_refuse_other_memory():
    x = torch.empty(2, 16, 3, 3, device="meta")
    with pytest.raises(ValueError, match=r"bias_act: x has strides \[144, 9, 3, 1\]: channels-last memory is needed"):
        bias_act.launch_forward(x, None, 0.1, 0, None, 0)


def test_a_new_map_is_packed_channels_last_to_the_last_stride():
    """Also where a stride does not matter: Inductor asks for those that a 1x1 map has by the rule."""
    for h, w in ((3, 5), (1, 1)):
        like = torch.empty(2, 16, h, w, device="meta")
        assert maps.empty_map(like).stride() == (16 * h * w, 1, 16 * w, 16)
        y = maps.empty_map(like, 8)
        assert (y.shape, y.stride()) == ((2, 8, h, w), (8 * h * w, 1, 8 * w, 8))


def test_torch_knows_the_kernels_of_each_op():
    """By source: AOTAutograd's cache keys hold them, so an edited kernel is not served from a cache."""
    from torch._library.triton import get_triton_kernels_for_op

    for module in ("bias_act", "reparametrize", "adversarial_loss"):
        importlib.import_module(f"csrc_triton.{module}")
    for name in ("bias_act", "bias_act_backward", "reparametrize", "reparametrize_backward", "adversarial_loss"):
        assert get_triton_kernels_for_op(f"csrc_triton::{name}"), name
