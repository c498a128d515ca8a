"""batch_norm's launchers against float64 autograd: the same comparison in the interpreter and on a GPU."""

import torch
import torch.nn.functional as F
from comparing import assert_close, random_map, random_vector, some_seeds
from hypothesis import strategies as st

from csrc_triton import batch_norm, philox
from csrc_triton.batch_norm import launch_backward, launch_forward
from csrc_triton.launch import RowSplit, Tile

SLOT, EPS = 3, 1e-4

# (shape, slope, dropout[, mean, std])
CASES = {
    "a 1x1 map": ((100, 512, 1, 1), 0.1, 0.0),
    "a 1x1 map, dropped": ((200, 72, 1, 1), 0.02, 0.2),
    "ragged channels and rows": ((4, 44, 7, 5), 0.02, 0.5),
    "one channel": ((3, 1, 5, 5), 0.1, 0.2),
    "two rows": ((2, 20, 1, 1), 0.1, 0.0),
    "all the rows of one launch": ((2, 16, 32, 32), 0.1, 0.2),
    "one launch, large mean": ((6, 24, 13, 13), 0.1, 0.0, 20.0, 1.7),
    "two launches": ((7, 12, 18, 19), 0.1, 0.0),
    "two launches, dropped, the last range of one row": ((1, 5, 1, 512 * 4 + 1), 0.1, 0.2),
    "two launches, one channel": ((3, 1, 29, 29), 1.0, 0.0),
}
# The same, with the rows in ranges of several tiles, as only large maps have them by themselves:
# (shape, slope, dropout, rows and channels of a tile, tiles of a range[, mean, std])
SPLIT_CASES = {
    "the paper's offset": ((6, 32, 13, 13), 0.1, 0.2, (64, 32), 3, 20.0, 1.7),
    "ragged channels and rows": ((4, 20, 7, 5), 0.02, 0.5, (32, 16), 2),
    "the last range of one row": ((1, 12, 65, 1), 0.0, 0.0, (16, 8), 2),
    "the last tile of one row": ((1, 8, 81, 1), 0.1, 0.0, (16, 8), 2, 5.0),
    "one range": ((1, 9, 5, 6), 0.1, 0.2, (16, 8), 2),
    "more ranges than are merged at once": ((1, 8, 13, 11), 0.1, 0.0, (16, 8), 1, -7.0, 0.5),
}
DRAWN = dict(
    shape=st.tuples(*(st.integers(1, n) for n in (9, 40, 13, 13))).filter(lambda s: s[0] * s[2] * s[3] > 1),
    slope=st.sampled_from([0.0, 0.02, 1.0]),
    dropout=st.sampled_from([0.0, 0.2, 0.5]),
    mean=st.sampled_from([0.0, -7.0, 20.0]),
)
# and in ranges of rows
DRAWN_SPLIT = DRAWN | dict(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 20, 6, 6))).filter(lambda s: s[0] * s[2] * s[3] > 1),
    tile=st.sampled_from([(16, 8), (32, 16)]),
    tiles=st.integers(1, 3),
)


def check(shape, slope, dropout, mean=0.0, std=1.0, *, dtype, device):
    x = random_map(shape, dtype, device, mean=mean, std=std)
    x[:, -1] = mean  # a constant channel
    check_data(x, random_map(shape, dtype, device, seed=2), slope, dropout)


def check_split(shape, slope, dropout, tile, tiles, mean=0.0, std=1.0, *, dtype, device, monkeypatch):
    (rows, channels), M = tile, shape[0] * shape[2] * shape[3]
    split = RowSplit(parts=-(-M // (rows * tiles)), rows=rows * tiles)
    monkeypatch.setattr(batch_norm, "SMALL_ROWS", 0)
    monkeypatch.setattr(batch_norm, "PARTS_AT_ONCE", 4)
    monkeypatch.setattr(batch_norm, "large_split", lambda *_: (Tile(rows, channels, 4), split))
    check(shape, slope, dropout, mean, std, dtype=dtype, device=device)


def check_data(x, dy, slope, dropout):
    dtype, device, (_, C, _, _) = x.dtype, x.device, x.shape
    weight, bias = random_vector(C, device, mean=1.0, std=0.3), random_vector(C, device, seed=3, std=0.3)
    seeds, threshold = some_seeds(device), philox.dropout_threshold(dropout)

    y, mean, var = launch_forward(x, weight, bias, EPS, slope, threshold, seeds, SLOT)
    dx, dweight, dbias = launch_backward(dy, x, mean, var, weight, bias, EPS, slope, threshold, seeds, SLOT)

    x64, w64, b64 = (t.double().requires_grad_() for t in (x, weight, bias))
    keep = philox.channel_keep(seeds, SLOT, threshold, x.shape).double()
    h = F.batch_norm(x64, None, None, w64, b64, True, 0.0, EPS)
    y64 = F.leaky_relu(h, slope) * keep / (1 - threshold / 65536)
    var64, mean64 = torch.var_mean(x64, (0, 2, 3), correction=0)

    assert y.dtype == dx.dtype == dtype
    assert {t.dtype for t in (mean, var, dweight, dbias)} == {torch.float32}
    assert y.is_contiguous(memory_format=torch.channels_last) and y.stride() == dx.stride()
    assert ((y == 0) | (keep != 0)).all(), "a dropped element is 0"
    assert_close(y, y64, "map", dtype, "y")
    deviation = var64.sqrt().max()
    assert (mean - mean64).abs().max() <= 1e-5 * deviation + 2**-24 * mean64.abs().max(), "mean"
    assert_close(var, var64, "statistic", dtype, "var")
    assert ((var - var64).abs() <= 1e-5 * var64).all(), "var, a constant channel's included"

    # where h all but vanishes, float32 may fall on the other side of the kink: dy is stopped there, for the kernels too
    kink = (h.detach().abs() < 1e-5) & (slope != 1.0)
    assert kink.double().mean() < 1e-3 or kink.sum() <= 1
    if kink.any():
        dy = dy.masked_fill(kink, 0).contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = launch_backward(dy, x, mean, var, weight, bias, EPS, slope, threshold, seeds, SLOT)
    y64.backward(dy.double())
    assert_close(dx, x64.grad, "map", dtype, "dx")
    assert_close(dweight, w64.grad, "parameter", dtype, "dweight")
    assert_close(dbias, b64.grad, "parameter", dtype, "dbias")
