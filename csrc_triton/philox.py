"""Counter-based random numbers: one stream for eager, compiled, interpreted and GPU code.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a 64-bit key and a 32-bit
counter to four 32-bit words. The key is one element of `seeds`, an int64 [K] tensor on the device; `slot` says which
one, and belongs to one random site of the network. Nothing is advanced: fresh numbers need fresh seeds, once a step.

Dropout: channels are taken in groups of eight. Row r (of M = N*H*W, channels-last) and group g have counter
r * ceil(C / 8) + g; the four words, low half before high half, are the 16-bit uniforms of channels 8g .. 8g+7.
A channel is kept if its uniform is >= threshold = round(p * 65536), and then scaled by 1 / (1 - threshold / 65536).
One call for eight decisions costs a third of the instructions of one call a decision.

Normals: element i has counter i; words 0 and 1 give one normal by Box-Muller as `tl.pair_uniform_to_normal` does, so
|eps| <= 5.68. Words 2 and 3 remain for two dropout decisions (their low halves).
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.stored import stored

# ---------------------------------------------------------------- device functions


@triton.jit
def channel_uniforms(seed, rows, first_channel, C, BC: tl.constexpr):
    """16-bit uniforms, int32 [BM, BC], of `rows` int32 [BM] and the channels first_channel + (0 .. BC-1).

    `first_channel` and BC are multiples of 8. The eight channels of a group come from one thread's registers.
    """
    groups = first_channel // 8 + tl.arange(0, BC // 8)
    counter = rows[:, None] * tl.cdiv(C, 8) + groups[None, :]
    w0, w1, w2, w3 = tl.randint4x(seed, counter)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # [BM, BC/8, 2, 2]: word = 2 * third axis + fourth axis
    halves = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(halves, [rows.shape[0], BC]).to(tl.int32)


@triton.jit
def element_words(seed, element):
    """eps (fp32 normal) and two 16-bit uniforms (int32) for each int32 element index."""
    w0, w1, w2, w3 = tl.randint4x(seed, element)
    eps, _ = tl.pair_uniform_to_normal(tl.uint_to_uniform_float(w0), tl.uint_to_uniform_float(w1))
    return eps, (w2 & 0xFFFF).to(tl.int32), (w3 & 0xFFFF).to(tl.int32)


@triton.jit
def drop_channels(v, seeds_ptr, slot, threshold, scale, rows, first_channel, C, BC: tl.constexpr):
    """fp32 [BM, BC], scaled where it is kept, else 0. seeds_ptr None: no dropout."""
    if seeds_ptr is not None:
        uniforms = channel_uniforms(tl.load(seeds_ptr + slot), rows, first_channel, C, BC)
        v = tl.where(uniforms >= threshold, v * scale, 0.0)
    return v


# ---------------------------------------------------------------- the same numbers from torch

_LOW32 = 0xFFFFFFFF
# The round multipliers 0xD2511F53 and 0xCD9E8D57 less 2^32: their products with a 32-bit number fit int64,
# low half unchanged, high half short by the number itself.
_ROUND_A = 0xD2511F53 - 2**32
_ROUND_B = 0xCD9E8D57 - 2**32
_KEY_A = 0x9E3779B9
_KEY_B = 0xBB67AE85


def philox4x32(
    seed: Tensor, c0: Tensor, c1: Tensor | int = 0, c2: Tensor | int = 0, c3: Tensor | int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words (int64 tensors holding uint32) for key `seed` (int64 []) and counters c0..c3 (int64, below 2^32).

    Every operation here is one that a compiler must trace: what only the words' low halves need is masked at the end.
    """
    k0, k1 = seed & _LOW32, seed >> 32
    # The mask is no change, but hides an arange from Inductor, whose CPU code takes (arange * constant) in 32 bits.
    w0: Any = c0 & _LOW32
    w1: Any = c1
    w2: Any = c2
    w3: Any = c3
    for _ in range(10):
        p, q = w0 * _ROUND_A, w2 * _ROUND_B
        w0, w1, w2, w3 = (
            (((q >> 32) + w2) ^ w1 ^ k0) & _LOW32,
            q,
            (((p >> 32) + w0) ^ w3 ^ k1) & _LOW32,
            p,
        )
        k0, k1 = k0 + _KEY_A, k1 + _KEY_B
    return w0, w1 & _LOW32, w2, w3 & _LOW32


def dropout_threshold(p: float) -> int:
    """The 16-bit uniform at and above which an element is kept. ValueError unless 0 <= p < 1 (to 16 bits)."""
    threshold = round(p * 65536) if 0.0 <= p < 1.0 else 65536
    if threshold >= 65536:
        raise ValueError(f"dropout is {p}: it must be at least 0 and less than 1 - 2**-17")
    return threshold


def kept_scale(threshold: int) -> float:
    """What kept values are multiplied by: the inverse of the exact probability of being kept."""
    return 1.0 / (1.0 - threshold / 65536)


def packed_keep(seed: Tensor, groups: int, threshold: int) -> Tensor:
    """Dropout decisions, 0 or 1, of `groups` groups of eight channels: the bytes of int64 [groups]. seed: int64 []."""
    counter = torch.arange(groups, dtype=torch.int64, device=seed.device)
    carry = 65536 - threshold  # uniform + carry reaches 2^16 exactly where uniform >= threshold
    words = philox4x32(seed, counter)
    low = [((word & 0xFFFF) + carry) >> 16 << 16 * i for i, word in enumerate(words)]
    high = [(word + (carry << 16)) >> 32 << 16 * i + 8 for i, word in enumerate(words)]
    return functools.reduce(operator.or_, low + high)


@torch.library.custom_op("csrc_triton::packed_keep", mutates_args=(), device_types="cpu")
def packed_keep_on_cpu(seed: Tensor, groups: int, threshold: int) -> Tensor:
    """`packed_keep` as one compiled loop for every site of a compiled step.

    Inductor's C++ of the ten rounds takes a compiler seconds, which each site of its own would cost again.
    """
    with torch.no_grad():
        return _compiled_packed_keep()(seed, groups, threshold)


@packed_keep_on_cpu.register_fake
def _(seed: Tensor, groups: int, threshold: int) -> Tensor:
    return seed.new_empty(groups)


@functools.cache
def _compiled_packed_keep() -> Callable[[Tensor, int, int], Tensor]:
    return torch.compile(packed_keep, fullgraph=True, dynamic=True)


def channel_keep(seeds: Tensor, slot: int, threshold: int, shape: Sequence[int]) -> Tensor:
    """Dropout decisions for an [N, C, H, W] map: uint8 0 or 1, channels-last memory.

    The eight decisions of a group are packed and viewed: the words are computed once, whatever a compiler fuses this
    with. uint8, because Inductor's CPU code reads it in vectors and bool one by one.
    """
    n, c, h, w = shape
    groups = -(-c // 8)
    pack = packed_keep_on_cpu if seeds.device.type == "cpu" and torch.compiler.is_compiling() else packed_keep
    keep = pack(seeds[slot], n * h * w * groups, threshold).view(torch.uint8).reshape(n, h, w, groups * 8)
    return keep[..., :c].permute(0, 3, 1, 2)


def torch_keep(like: Tensor, threshold: int) -> Tensor:
    """Decisions of torch's own generator, bool like `like`."""
    return stored(torch.rand_like(like, dtype=torch.float32) >= threshold / 65536)


def keep_mask(backend: str, like: Tensor, threshold: int, seeds: Tensor | None, slot: int) -> Tensor | None:
    """Dropout decisions for an [N, C, H, W] map, as `drop` takes them; None where nothing is dropped."""
    if not threshold:
        return None
    if backend == "inductor":
        return torch_keep(like, threshold)
    assert seeds is not None
    return channel_keep(seeds, slot, threshold, like.shape)


def drop(x: Tensor, keep: Tensor, threshold: int) -> Tensor:
    """x scaled where `keep` (0 or 1) is set, else 0."""
    return torch.where(keep.to(torch.int32) != 0, x * kept_scale(threshold), 0.0)


def element_normals(
    seeds: Tensor, slot: int, count: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """eps [count] and two 16-bit uniforms, int64 [count]: the twin of `element_words`.

    dtype: of the arithmetic from the words on. In float64, code that rounds its logarithms otherwise (a compiler's)
    still draws the same eps.
    """
    counter = torch.arange(count, dtype=torch.int64, device=seeds.device)
    w0, w1, w2, w3 = philox4x32(seeds[slot], counter)
    radius = torch.sqrt(-2.0 * torch.log(torch.clamp_min(_unit(w0, dtype), 1e-7)))
    return radius * torch.cos(6.283185307179586 * _unit(w1, dtype)), w2 & 0xFFFF, w3 & 0xFFFF


def _unit(word: Tensor, dtype: torch.dtype) -> Tensor:
    """A uint32 in [0, 1) as `tl.uint_to_uniform_float` maps it: signed, negatives folded, times about 2^-31."""
    folded = torch.where(word >= 2**31, _LOW32 - word, word)
    return folded.to(dtype) * 4.6566127342e-10
