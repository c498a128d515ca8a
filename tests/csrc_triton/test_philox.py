"""The torch twin of the random stream: against published vectors, compiled, and by its statistics.

That the device functions draw the same numbers is tested where kernels run (interpreter/test_philox.py, gpu/).
"""

import itertools
import math

import numpy as np
import pytest
import torch
from comparing import some_seeds

from csrc_triton import philox


def _independent_philox(key: int, counter: int) -> list[int]:
    """Philox4x32-10 of the paper's algorithm, in Python integers."""
    c, k0, k1 = [counter, 0, 0, 0], key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


@pytest.mark.parametrize(
    ("key", "counters", "words"),
    [
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (-1, (0xFFFFFFFF,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0_A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(key, counters, words):
    """Random123's kat_vectors for philox4x32-10."""
    got = philox.philox4x32(torch.tensor(key), *(torch.tensor([c]) for c in counters))
    assert tuple(int(w) for w in got) == words


def test_golden_values():
    """As tl.randint4x(42, 0..3) gives them, signed."""
    word0 = philox.philox4x32(torch.tensor(42), torch.arange(4))[0].to(torch.int32)
    assert word0.tolist() == [-1662324653, -52747993, -747896283, -1161362315]


def test_every_seed_and_counter_bit_counts():
    for key in (1, -1, 2**40 + 12345, 2**63 - 1, -(2**63)):
        counters = [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
        got = torch.stack(philox.philox4x32(torch.tensor(key), torch.tensor(counters)), 1)
        assert got.tolist() == [_independent_philox(key & (2**64 - 1), c) for c in counters]


def test_compiled_twin_is_the_eager_one():
    """Inductor must not change a bit of it; long enough for its vectors and their tail."""
    seeds, shape = some_seeds("cpu"), (3, 20, 13, 7)

    def draw(seeds):
        return philox.channel_keep(seeds, 1, 13107, shape), *philox.element_normals(seeds, 2, 1003)

    for eager, compiled in zip(draw(seeds), torch.compile(draw, fullgraph=True)(seeds), strict=True):
        if eager.is_floating_point():
            assert (eager - compiled).abs().max() < 2e-6
        else:
            assert torch.equal(eager, compiled) and eager.stride() == compiled.stride()


@pytest.mark.parametrize("groups", [15, 16, 37, 1000])
@pytest.mark.parametrize("threshold", [2, 13107, 65535])
def test_the_compiled_loop_of_every_site(groups, threshold):
    seed = torch.tensor(-5 * 2**33 + 11)
    packed = philox.packed_keep(seed, groups, threshold)
    assert torch.equal(philox.packed_keep_on_cpu(seed, groups, threshold), packed)


def test_a_compiled_loop_survives_what_a_step_does_around_it():
    """Fake tensors, tracing with symbols, gradients on and off."""
    torch.library.opcheck(philox.packed_keep_on_cpu, (torch.tensor(3), 37, 13107))


def test_layout_of_the_decisions():
    """Channel 8g + 2w + h of row r is decided by half h of word w of counter r * ceil(C / 8) + g."""
    n, c, h, w = 2, 11, 3, 2
    threshold, seeds = 20000, some_seeds("cpu")
    keep = philox.channel_keep(seeds, 1, threshold, (n, c, h, w))
    assert keep.shape == (n, c, h, w) and keep.dtype == torch.uint8
    for row, channel in itertools.product(range(n * h * w), range(c)):
        words = _independent_philox(int(seeds[1]), row * 2 + channel // 8)
        uniform = words[channel % 8 // 2] >> 16 * (channel % 2) & 0xFFFF
        image, pixel = divmod(row, h * w)
        assert keep[image, channel, pixel // w, pixel % w] == (uniform >= threshold)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9, 1 / 65536])
def test_rate_and_scale(p):
    """Kept with the probability the scale undoes, within five standard deviations; the mean is unbiased."""
    threshold = philox.dropout_threshold(p)
    keep = philox.channel_keep(some_seeds("cpu"), 0, threshold, (64, 64, 8, 8)).double()
    kept = 1 - threshold / 65536
    assert abs(kept - (1 - p)) < 1e-5 and philox.kept_scale(threshold) == 1 / kept
    deviation = math.sqrt(kept * (1 - kept) / keep.numel())
    assert abs(keep.mean() - kept) < 5 * deviation
    for axis in [(0, 2, 3), (1, 2, 3), (0, 1)]:  # no channel, image or pixel is favoured
        means = keep.mean(axis)
        spread = math.sqrt(kept * (1 - kept) * means.numel() / keep.numel())
        assert (means - kept).abs().max() < 5.5 * spread


def test_no_two_slots_or_seeds_correlate():
    """Each pair of masks agrees as often as independent ones; likewise within a mask, neighbour with neighbour."""
    threshold, shape = philox.dropout_threshold(0.5), (16, 64, 8, 8)
    seeds = torch.tensor([7, 8, 9, 7 + 2**32, -7])
    masks = [philox.channel_keep(seeds, slot, threshold, shape).double().flatten() * 2 - 1 for slot in range(5)]
    bound = 5 / math.sqrt(masks[0].numel())
    for a, b in itertools.combinations(masks, 2):
        assert abs((a * b).mean()) < bound
    rows = masks[0].view(shape).permute(0, 2, 3, 1).reshape(-1, 64)
    assert abs((rows[:, 1:] * rows[:, :-1]).mean()) < bound * 1.02
    assert abs((rows[1:] * rows[:-1]).mean()) < bound * 1.02


def test_the_same_seeds_repeat_and_new_ones_do_not():
    draw = lambda seeds: philox.channel_keep(seeds, 1, 32768, (2, 16, 4, 4))  # noqa: E731
    assert torch.equal(draw(some_seeds("cpu")), draw(some_seeds("cpu")))
    assert not torch.equal(draw(some_seeds("cpu")), draw(some_seeds("cpu") + 1))


def test_normals():
    """Mean, variance, kurtosis and the distribution function of a normal; no number beyond 5.68."""
    eps, low2, low3 = philox.element_normals(some_seeds("cpu"), 1, 200_000)
    assert eps.dtype == torch.float32 and eps.abs().max() <= 5.68
    e = eps.double()
    assert abs(e.mean()) < 5 / math.sqrt(len(e)) and abs(e.var() - 1) < 5 * math.sqrt(2 / len(e))
    assert abs((e**4).mean() - 3) < 5 * math.sqrt(96 / len(e))
    ordered = np.sort(e.numpy())
    cdf = torch.special.ndtr(torch.from_numpy(ordered)).numpy()
    kolmogorov = np.abs(cdf - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert kolmogorov < 1.95 / math.sqrt(len(ordered))  # one in a thousand
    for uniforms in (low2, low3):
        centred = uniforms.double() / 65536 - 0.5
        assert abs(centred.mean()) < 5 / math.sqrt(12 * len(e))
        assert abs((centred * e).mean()) < 5 / math.sqrt(12 * len(e))


@pytest.mark.parametrize("p", [-0.1, 1.0, 0.999999, float("nan")])
def test_a_rate_that_is_none(p):
    with pytest.raises(ValueError, match="dropout is"):
        philox.dropout_threshold(p)
