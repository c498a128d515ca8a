"""bias_act's launchers against float64 autograd: the same comparison in the interpreter and on a GPU."""

import torch
import torch.nn.functional as F
from comparing import assert_close, random_map, random_vector, some_seeds
from hypothesis import strategies as st

from csrc_triton import philox
from csrc_triton.bias_act import launch_backward, launch_forward

SLOT = 1

# (shape, slope, bias, dropout)
CASES = {
    "a 1x1 map, two column blocks": ((50, 128, 1, 1), 0.1, True, 0.2),
    "ragged channels and rows": ((3, 44, 7, 5), 0.02, True, 0.5),
    "several row ranges": ((3, 32, 8, 11), 0.1, True, 0.0),
    "one row beyond a tile": ((1, 70, 33, 1), 0.0, True, 0.2),
    "image channels, dropout alone": ((5, 3, 9, 8), 1.0, False, 0.2),
    "one channel": ((3, 1, 5, 5), 0.1, True, 0.2),
    "one row": ((1, 20, 1, 1), 0.1, True, 0.9),
    "activation alone": ((2, 24, 4, 4), 0.1, False, 0.0),
    "bias alone": ((2, 10, 4, 4), 1.0, True, 0.0),
    "large mean": ((2, 16, 6, 6), 0.1, True, 0.2, 20.0),
}
DRAWN = dict(
    shape=st.tuples(*(st.integers(1, n) for n in (9, 40, 13, 13))),
    slope=st.sampled_from([0.0, 0.02, 1.0]),
    with_bias=st.booleans(),
    dropout=st.sampled_from([0.0, 0.2, 0.5]),
)


def check(shape, slope, with_bias, dropout, mean=0.0, *, dtype, device):
    x = random_map(shape, dtype, device, mean=mean)
    dy = random_map(shape, dtype, device, seed=2)
    bias = random_vector(shape[1], device, std=0.5) if with_bias else None
    seeds, threshold = some_seeds(device), philox.dropout_threshold(dropout)

    y = launch_forward(x, bias, slope, threshold, seeds, SLOT)
    dx, db = launch_backward(dy, y if slope != 1.0 else None, slope, threshold, seeds, SLOT, with_bias)

    x64 = x.double().requires_grad_()
    b64 = bias.double().requires_grad_() if with_bias else torch.zeros(shape[1], device=device, dtype=torch.float64)
    h = x64 + b64[None, :, None, None]
    keep = philox.channel_keep(seeds, SLOT, threshold, shape).double()
    y64 = F.leaky_relu(h, slope) * keep / (1 - threshold / 65536)
    y64.backward(dy.double())

    assert_close(y, y64, "map", dtype, "y")
    # where h all but vanishes, x + bias in float32 may fall on the other side of the kink
    kink = (h.detach().abs() < 1e-5) & (slope != 1.0)
    assert kink.double().mean() < 1e-3 or kink.sum() <= 1
    assert_close(dx.double().masked_fill(kink, 0).to(dtype), x64.grad.masked_fill(kink, 0), "map", dtype, "dx")
    if with_bias and not kink.any():
        assert_close(db, b64.grad, "parameter", dtype, "db")
    assert db.dtype == torch.float32 and y.dtype == dx.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last) and y.stride() == dx.stride()
    assert torch.equal((y != 0) & (keep == 0), torch.zeros_like(keep, dtype=torch.bool)), "a dropped element is 0"
