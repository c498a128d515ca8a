"""Both players' losses, both scores and both logit gradients from one read of the logits.

logits: [2N], the first N of data pairs (l_q), the last N of sample pairs (l_p). With t = -l_q or l_p:

    L_d = sum softplus(t) / N        dL_d/dl = -+sigmoid(t) / N     (minus for data pairs)
    L_g = sum softplus(-t) / N       dL_g/dl = +-sigmoid(-t) / N
    factor = (dL_g/dl) / (dL_d/dl) = -exp(-t)

so that where a discriminator treats pairs independently, one backward seeded with dL_d/dl, times factor, is L_g's too.
In seed_d and factor, |l| is at most 40: D's seed then stays above 4e-18 / N, which leaves float32 and bfloat16 twenty
decades for the way back through D, and factor * seed_d is seed_g to rounding, pair by pair, up to there (clamping the
factor alone would lose L_g's gradient just when D wins; a limit of 15 would put 3e-7 where a lost pair's is e^-30).
The losses, the scores and seed_g take the logit as it is. float32, float16 or bfloat16 (float64 without the kernel);
arithmetic in float32. Forward only: the gradients are outputs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import check, launch, maps
from csrc_triton.launch import wrap_triton

LOGIT_LIMIT = 40.0
BLOCK, WARPS = 1024, 4


class AdversarialLoss(NamedTuple):
    """stats, factor: float32 (float64 of float64 logits); seeds: as the logits. Both seeds carry `scale` if given."""

    stats: Tensor
    """[4]: L_d, L_g, mean sigmoid(l_q), mean sigmoid(l_p)."""
    seed_d: Tensor
    """[2N]: dL_d/dl, of the clamped logit."""
    seed_g: Tensor
    """[2N]: dL_g/dl."""
    factor: Tensor
    """[2N]: dL_g/dl / dL_d/dl, of the clamped logit."""


# ---------------------------------------------------------------- reference


def reference(logits: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logit = maps.widened(logits)
    n = len(logit) // 2
    t = torch.cat([-logit[:n], logit[n:]])
    clamped = t.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    sign = torch.cat([-torch.ones_like(t[:n]), torch.ones_like(t[n:])]) / n
    if scale is not None:
        sign = sign * scale.to(t.dtype)
    stats = torch.stack(
        [
            -F.logsigmoid(-t).sum() / n,
            -F.logsigmoid(t).sum() / n,
            torch.sigmoid(logit[:n]).mean(),
            torch.sigmoid(logit[n:]).mean(),
        ]
    )
    seed_d, seed_g = sign * torch.sigmoid(clamped), -sign * torch.sigmoid(-t)
    return stats, seed_d.to(logits.dtype), seed_g.to(logits.dtype), -torch.exp(-clamped)


# ---------------------------------------------------------------- kernel


@triton.jit
def loss_kernel(
    logits_ptr,  # [2N]
    scale_ptr,  # fp32 [] or None
    stats_ptr,  # fp32 [4]
    seed_d_ptr,  # [2N]
    seed_g_ptr,  # [2N]
    factor_ptr,  # fp32 [2N]
    N,
    LIMIT: tl.constexpr,
    B: tl.constexpr,
):
    """One program: sums in a fixed order, and 2N is a few hundred."""
    weight = 1.0 / N
    seed_weight = weight
    if scale_ptr is not None:
        seed_weight = weight * tl.load(scale_ptr).to(tl.float32)
    loss_d = tl.zeros((B,), tl.float32)
    loss_g = tl.zeros((B,), tl.float32)
    score_q = tl.zeros((B,), tl.float32)
    score_p = tl.zeros((B,), tl.float32)
    for start in range(0, 2 * N, B):
        i = start + tl.arange(0, B)
        inside = i < 2 * N
        data = i < N
        logit = tl.load(logits_ptr + i, mask=inside, other=0.0).to(tl.float32)
        t = tl.where(data, -logit, logit)
        e = tl.exp(-tl.abs(t))
        u = 1.0 + e
        log1p = tl.where(u == 1.0, e, tl.log(u) * e / (u - 1.0))  # to the last bit also where e is tiny
        own = tl.where(t > 0, 1.0, e) / u  # sigmoid(t)
        other = tl.where(t > 0, e, 1.0) / u  # sigmoid(-t)
        loss_d += tl.where(inside, tl.maximum(t, 0.0) + log1p, 0.0)
        loss_g += tl.where(inside, tl.maximum(-t, 0.0) + log1p, 0.0)
        score_q += tl.where(data, other, 0.0)
        score_p += tl.where(inside & (i >= N), own, 0.0)
        clamped = tl.where(t > LIMIT, LIMIT, tl.where(t < -LIMIT, -LIMIT, t))  # a NaN stays one
        sign = tl.where(data, -seed_weight, seed_weight)
        seed_d = sign / (1.0 + tl.exp(-clamped))
        tl.store(seed_d_ptr + i, seed_d.to(seed_d_ptr.dtype.element_ty), mask=inside)
        tl.store(seed_g_ptr + i, (-sign * other).to(seed_g_ptr.dtype.element_ty), mask=inside)
        tl.store(factor_ptr + i, -tl.exp(-clamped), mask=inside)
    tl.store(stats_ptr + 0, tl.sum(loss_d, 0) * weight)
    tl.store(stats_ptr + 1, tl.sum(loss_g, 0) * weight)
    tl.store(stats_ptr + 2, tl.sum(score_q, 0) * weight)
    tl.store(stats_ptr + 3, tl.sum(score_p, 0) * weight)


# ---------------------------------------------------------------- launcher


def launch_forward(logits: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not logits.is_contiguous():
        raise ValueError(f"adversarial_loss: logits has strides {list(logits.stride())}: [1] is needed")
    stats = torch.empty(4, dtype=torch.float32, device=logits.device)
    seed_d, seed_g = torch.empty_like(logits), torch.empty_like(logits)
    factor = torch.empty_like(logits, dtype=torch.float32)
    wrap_triton(loss_kernel)[(1,)](
        logits,
        scale,
        stats,
        seed_d,
        seed_g,
        factor,
        len(logits) // 2,
        LIMIT=LOGIT_LIMIT,
        B=BLOCK,
        num_warps=WARPS,
    )
    return stats, seed_d, seed_g, factor


# ---------------------------------------------------------------- registration


@triton_op("csrc_triton::adversarial_loss", mutates_args=())
def forward_op(logits: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = logits.contiguous()
    if not launch.runs_kernels(logits):
        return reference(logits, scale)
    return launch_forward(logits, scale)


@forward_op.register_fake
def _(logits, scale):
    seed_d, seed_g = logits.new_empty(logits.shape), logits.new_empty(logits.shape)
    single = maps.arithmetic_dtype(logits.dtype)
    return logits.new_empty(4, dtype=single), seed_d, seed_g, logits.new_empty(logits.shape, dtype=single)


# ---------------------------------------------------------------- public


def adversarial_loss(logits: Tensor, *, scale: Tensor | None = None, backend: str) -> AdversarialLoss:
    """Losses, scores, seeds and factors of logits [2N]; the module says what is what. Nothing here has a gradient.

    scale: float32 [], multiplies both seeds (a loss scale, for float16).
    backend: as elsewhere; "eager" and "inductor" are the same here. ValueError for a shape, dtype or device.
    """
    check.backend("adversarial_loss", backend)
    check.shape("adversarial_loss", "logits", logits, (None,), "[2N]")
    if len(logits) % 2:
        raise ValueError(f"adversarial_loss: logits has shape {list(logits.shape)}: an even number is needed")
    check.dtype("adversarial_loss", "logits", logits, backend)
    if scale is not None:
        check.shape("adversarial_loss", "scale", scale, (), "[]")
        check.device("adversarial_loss", logits, scale=scale)
    with torch.no_grad():
        outputs = forward_op(logits, scale) if backend == "triton" else reference(logits, scale)
    return AdversarialLoss(*outputs)
