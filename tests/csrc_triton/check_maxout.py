"""maxout's launchers against the formula in float64: the same comparison in the interpreter and on a GPU.

Data and bias are multiples of 1/16 and of 1/1024, so that x + bias is exact in float32: winners and ties, of which
there are many, must come out exactly.
"""

import torch
from comparing import assert_close, random_map, some_seeds
from hypothesis import strategies as st

from csrc_triton import launch, maps, philox
from csrc_triton.maxout import launch_backward, launch_forward

SLOT = 0

# (x's shape, bias, dropout, order)
CASES = {
    "wide rows of a 1x1 map": ((40, 272, 1, 1), "tied", 0.5, "after"),
    "wide rows, before": ((40, 272, 1, 1), "tied", 0.5, "before"),
    "ragged channels and rows": ((4, 44, 7, 5), "tied", 0.2, "after"),
    "ragged, before": ((4, 44, 7, 5), "tied", 0.2, "before"),
    "no dropout": ((6, 64, 6, 5), "tied", 0.0, "after"),
    "no bias": ((3, 24, 5, 5), None, 0.5, "after"),
    "untied": ((5, 24, 4, 3), "untied", 0.5, "after"),
    "untied, before, one row beyond a tile": ((1, 6, 1, 257), "untied", 0.2, "before"),
    "one channel": ((3, 2, 5, 5), "tied", 0.2, "after"),
    "one row": ((1, 20, 1, 1), "tied", 0.9, "before"),
}
DRAWN = dict(
    shape=st.tuples(*(st.integers(1, n) for n in (9, 20, 9, 9))).map(lambda s: (s[0], 2 * s[1], *s[2:])),
    bias_kind=st.sampled_from(["tied", "untied", None]),
    dropout=st.sampled_from([0.0, 0.2, 0.5]),
    order=st.sampled_from(["after", "before"]),
)


def on_grid(values, step):
    """Rounded to multiples of `step`; within 7, where every data type has those of 1/16."""
    return ((values.float() / step).round() * step).clamp(-7, 7).to(values.dtype)


def random_data(shape, bias_kind, dtype, device):
    """(x, bias, dy)"""
    n, c, height, width = shape
    x = on_grid(random_map(shape, dtype, device), 1 / 16)
    dy = random_map((n, c // 2, height, width), dtype, device, seed=2)
    if bias_kind is None:
        return x, None, dy
    size = (1, c, 1, 1) if bias_kind == "tied" else (1, c, height, width)
    bias = on_grid(random_map(size, torch.float32, device, seed=1, std=0.5), 1 / 1024)[0]
    return x, bias.flatten() if bias_kind == "tied" else bias.contiguous(), dy


def formula64(x, bias, keep, scale, order, dy):
    """y, code, dx; a tie is the first's."""
    h = x.double()
    if bias is not None:
        h = h + bias.double().view(1, -1, *(bias.shape[1:] or (1, 1)))
    if order == "before":
        h = h * keep * scale
        keep_first, keep_second = keep[:, ::2], keep[:, 1::2]
    else:
        keep_first = keep_second = keep
    wins = h[:, 1::2] > h[:, ::2]
    kept = torch.where(wins, keep_second, keep_first)
    y = torch.where(wins, h[:, 1::2], h[:, ::2])
    y = y * keep * scale if order == "after" else y
    g = dy.double() * kept * scale
    return y, wins + 2 * kept, torch.stack((g * ~wins, g * wins), dim=2).flatten(1, 2)


def check(shape, bias_kind, dropout, order, *, dtype, device):
    check_data(*random_data(shape, bias_kind, dtype, device), dropout, order)


def check_data(x, bias, dy, dropout, order):
    dtype, device = x.dtype, x.device
    before, tied = order == "before", bias is not None and bias.dim() == 1
    seeds, threshold = some_seeds(device), philox.dropout_threshold(dropout)

    y, code = launch_forward(x, bias, threshold, before, seeds, SLOT)
    dx, dbias = launch_backward(dy, code, threshold, tied)

    keep = philox.channel_keep(seeds, SLOT, threshold, x.shape if before else y.shape).double()
    y64, code64, dx64 = formula64(x, bias, keep, 1 / (1 - threshold / 65536), order, dy)
    assert y.dtype == dx.dtype == dtype and code.dtype == torch.uint8 and dbias.dtype == torch.float32
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, code, dx))
    assert_close(y, y64, "maxout", dtype, "y")
    assert torch.equal(code.double(), code64.double()), "code"
    assert_close(dx, dx64, "maxout", dtype, "dx")
    if dropout in (0.0, 0.5):
        assert torch.equal(dx, dx64.to(dtype)), "dx is exact where the scale is a power of two"
    if tied:
        assert_close(dbias, dx64.sum((0, 2, 3)), "parameter", dtype, "dbias")


def check_ranges(dtype, device, monkeypatch):
    """Programs of the backward that take several tiles each, as for large maps."""
    two_tiles = lambda rows, tile, columns, max_parts: launch.RowSplit(-(-rows // (2 * tile)), 2 * tile)  # noqa: E731
    monkeypatch.setattr(launch, "split_rows", two_tiles)
    for rows in (1025, 900, 513):
        check((1, 12, rows, 1), "tied", 0.2, "after", dtype=dtype, device=device)


def check_ties_and_nan(dtype, device):
    nan = float("nan")
    pairs = torch.tensor([[1.0, 1.0], [nan, 2.0], [2.0, nan], [nan, nan], [-0.0, 0.0], [-1.0, -2.0]])
    x = maps.channels_last(pairs.reshape(1, 12, 1, 1).to(device, dtype))
    y, code = launch_forward(x, None, 0, False, None, 0)
    assert code.flatten().tolist() == [2, 2, 3, 3, 2, 2]
    assert y.flatten().isnan().tolist() == [False, True, True, True, False, False]
    dx, _ = launch_backward(torch.ones_like(y), code, 0, False)
    assert dx.flatten().tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0]
