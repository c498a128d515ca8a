"""The device functions draw the twin's numbers, bit for bit."""

import pytest
import torch
import triton
import triton.language as tl
from check_philox import SHAPES, check_masks, check_normals
from comparing import some_seeds

from csrc_triton import philox


@triton.jit
def uniforms_kernel(seeds_ptr, slot, out_ptr, M, C, BM: tl.constexpr, BC: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    uniforms = philox.channel_uniforms(tl.load(seeds_ptr + slot), rows, first, C, BC)
    tl.store(out_ptr + rows[:, None] * C + cols[None, :], uniforms, mask=(rows[:, None] < M) & (cols[None, :] < C))


@triton.jit
def words_kernel(seeds_ptr, slot, eps_ptr, low2_ptr, low3_ptr, B: tl.constexpr):
    element = tl.program_id(0) * B + tl.arange(0, B)
    eps, low2, low3 = philox.element_words(tl.load(seeds_ptr + slot), element)
    tl.store(eps_ptr + element, eps)
    tl.store(low2_ptr + element, low2)
    tl.store(low3_ptr + element, low3)


@pytest.mark.parametrize(("channels", "block"), [(1, 8), (3, 16), (20, 8), (20, 32), (64, 64)])
def test_channel_uniforms(channels, block):
    shape, seeds = (1, channels, 3, 3), some_seeds("cpu")
    out = torch.empty(9, channels, dtype=torch.int32)
    for slot in range(4):
        uniforms_kernel[(2, triton.cdiv(channels, block))](seeds, slot, out, 9, channels, BM=8, BC=block)
        assert out.min() >= 0 and out.max() < 65536
        for threshold in (1, 13107, 32768, 65535):
            keep = philox.channel_keep(seeds, slot, threshold, shape).permute(0, 2, 3, 1).reshape(9, channels)
            assert torch.equal(keep.bool(), out >= threshold)


def test_element_words():
    seeds, eps = some_seeds("cpu"), torch.empty(256)
    low2, low3 = torch.empty(256, dtype=torch.int32), torch.empty(256, dtype=torch.int32)
    for slot in range(4):
        words_kernel[(2,)](seeds, slot, eps, low2, low3, B=128)
        eps_twin, low2_twin, low3_twin = philox.element_normals(seeds, slot, 256)
        assert torch.equal(low2, low2_twin.int()) and torch.equal(low3, low3_twin.int())
        assert (eps - eps_twin).abs().max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_through_an_op(shape, ops_run_kernels):
    check_masks(shape, 1, "cpu")


def test_normals_through_an_op(ops_run_kernels):
    check_normals(2, "cpu")
