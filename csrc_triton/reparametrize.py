"""The encoder's sample, joined with the prior's, ready for the discriminator.

    z_joint = [dropout(z_hat); dropout(z)],   z_hat = mu + exp(log_sigma) * eps,   eps ~ N(0, I)

params: [N, 2L, 1, 1], mu then log_sigma; z: [N, L, 1, 1], the prior's sample; z_joint: [2N, L, 1, 1]; one dtype of
float32, float16, bfloat16 (float64 without kernels); arithmetic in float32. eps and both masks come from (seeds, slot)
by `philox.element_words`, element i = n * L + l, and are made again in the backward:

    dmu = keep * scale * g,   dlog_sigma = dmu * exp(log_sigma) * eps,   g = the first N rows of dz_joint

z gets no gradient (nothing learns from the prior's sample).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import check, launch, maps, philox
from csrc_triton.launch import wrap_triton
from csrc_triton.philox import element_words

# One element a thread: a batch of codes is small, and the transcendental functions are its cost.
BLOCK, WARPS = 128, 4

# ---------------------------------------------------------------- reference


def reference(params: Tensor, z: Tensor, eps: Tensor, keep: Tensor | None, threshold: int) -> Tensor:
    """eps: float [N, L, 1, 1]; keep: uint8 or bool [2N, L, 1, 1], or None for no dropout."""
    mu, log_sigma = maps.widened(params).chunk(2, dim=1)
    z_hat = mu + torch.exp(log_sigma) * eps.to(mu.dtype)
    joint = torch.cat([z_hat, z.detach().to(mu.dtype)])
    return (joint if keep is None else philox.drop(joint, keep, threshold)).to(params.dtype)


def reference_backward(g: Tensor, params: Tensor, eps: Tensor, keep: Tensor | None, threshold: int) -> Tensor:
    """dparams like params."""
    n = params.shape[0]
    log_sigma = maps.widened(params).chunk(2, dim=1)[1]
    dmu = g[:n].to(log_sigma.dtype)
    if keep is not None:
        dmu = philox.drop(dmu, keep[:n], threshold)
    return torch.cat([dmu, dmu * torch.exp(log_sigma) * eps.to(dmu.dtype)], dim=1).to(params.dtype)


def noise(z: Tensor, seeds: Tensor, slot: int, threshold: int) -> tuple[Tensor, Tensor | None]:
    """eps and keep of the stream, as the references take them."""
    single = maps.arithmetic_dtype(z.dtype)
    eps, uniform_z_hat, uniform_z = philox.element_normals(seeds, slot, z.numel(), single)
    keep = None
    if threshold:
        uniforms = torch.cat([uniform_z_hat, uniform_z])
        keep = (uniforms >= threshold).to(torch.uint8).view(2 * z.shape[0], *z.shape[1:])
    return eps.view(z.shape), keep


# ---------------------------------------------------------------- kernels


@triton.jit(do_not_specialize=["slot", "threshold"])
def forward_kernel(
    params_ptr,  # [N, 2L]
    z_ptr,  # [N, L]
    joint_ptr,  # [2N, L]
    seeds_ptr,  # int64 [K]
    slot,
    threshold,
    scale,
    count,  # N * L
    L,
    DROP: tl.constexpr,
    B: tl.constexpr,
):
    scale = tl.cast(scale, tl.float32)
    element = tl.program_id(0) * B + tl.arange(0, B)
    inside = element < count
    mu_ptr = params_ptr + element // L * (2 * L) + element % L
    mu = tl.load(mu_ptr, mask=inside, other=0.0).to(tl.float32)
    log_sigma = tl.load(mu_ptr + L, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + element, mask=inside, other=0.0).to(tl.float32)
    eps, uniform_z_hat, uniform_z = element_words(tl.load(seeds_ptr + slot), element)
    z_hat = tl.fma(tl.exp(log_sigma), eps, mu)
    if DROP:
        z_hat = tl.where(uniform_z_hat >= threshold, z_hat * scale, 0.0)
        z = tl.where(uniform_z >= threshold, z * scale, 0.0)
    tl.store(joint_ptr + element, z_hat.to(joint_ptr.dtype.element_ty), mask=inside)
    tl.store(joint_ptr + count + element, z.to(joint_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["slot", "threshold"])
def backward_kernel(
    g_ptr,  # [2N, L]
    params_ptr,  # [N, 2L]
    dparams_ptr,  # [N, 2L]
    seeds_ptr,  # int64 [K]
    slot,
    threshold,
    scale,
    count,  # N * L
    L,
    DROP: tl.constexpr,
    B: tl.constexpr,
):
    scale = tl.cast(scale, tl.float32)
    element = tl.program_id(0) * B + tl.arange(0, B)
    inside = element < count
    place = element // L * (2 * L) + element % L
    g = tl.load(g_ptr + element, mask=inside, other=0.0).to(tl.float32)
    log_sigma = tl.load(params_ptr + place + L, mask=inside, other=0.0).to(tl.float32)
    eps, uniform_z_hat, _ = element_words(tl.load(seeds_ptr + slot), element)
    if DROP:
        g = tl.where(uniform_z_hat >= threshold, g * scale, 0.0)
    tl.store(dparams_ptr + place, g.to(dparams_ptr.dtype.element_ty), mask=inside)
    dlog_sigma = g * tl.exp(log_sigma) * eps
    tl.store(dparams_ptr + place + L, dlog_sigma.to(dparams_ptr.dtype.element_ty), mask=inside)


# ---------------------------------------------------------------- launchers (contiguous rows)


def launch_forward(params: Tensor, z: Tensor, threshold: int, seeds: Tensor, slot: int) -> Tensor:
    check.layout("reparametrize", params=params, z=z)
    n, L = z.shape[:2]
    joint = torch.empty((2 * n, L, 1, 1), dtype=z.dtype, device=z.device)
    wrap_triton(forward_kernel)[(triton.cdiv(n * L, BLOCK),)](
        params,
        z,
        joint,
        seeds,
        slot,
        threshold,
        philox.kept_scale(threshold),
        n * L,
        L,
        DROP=threshold > 0,
        B=BLOCK,
        num_warps=WARPS,
    )
    return joint


def launch_backward(g: Tensor, params: Tensor, threshold: int, seeds: Tensor, slot: int) -> Tensor:
    check.layout("reparametrize", g=g, params=params)
    n, L = params.shape[0], g.shape[1]
    dparams = torch.empty((n, 2 * L, 1, 1), dtype=params.dtype, device=params.device)
    wrap_triton(backward_kernel)[(triton.cdiv(n * L, BLOCK),)](
        g,
        params,
        dparams,
        seeds,
        slot,
        threshold,
        philox.kept_scale(threshold),
        n * L,
        L,
        DROP=threshold > 0,
        B=BLOCK,
        num_warps=WARPS,
    )
    return dparams


# ---------------------------------------------------------------- registration


@triton_op("csrc_triton::reparametrize", mutates_args=())
def forward_op(params: Tensor, z: Tensor, threshold: int, seeds: Tensor, slot: int) -> Tensor:
    params, z = maps.channels_last(params), maps.channels_last(z)
    if not launch.runs_kernels(params):
        return reference(params, z, *noise(z, seeds, slot, threshold), threshold).contiguous()
    return launch_forward(params, z, threshold, seeds, slot)


@triton_op("csrc_triton::reparametrize_backward", mutates_args=())
def backward_op(g: Tensor, params: Tensor, threshold: int, seeds: Tensor, slot: int) -> Tensor:
    g, params = maps.channels_last(g), maps.channels_last(params)
    if not launch.runs_kernels(params):
        drawn = noise(g[: params.shape[0]], seeds, slot, threshold)
        return reference_backward(g, params, *drawn, threshold).contiguous()
    return launch_backward(g, params, threshold, seeds, slot)


@forward_op.register_fake
def _(params, z, threshold, seeds, slot):
    return z.new_empty((2 * z.shape[0], z.shape[1], 1, 1))


@backward_op.register_fake
def _(g, params, threshold, seeds, slot):
    return params.new_empty(params.shape)


def _setup_context(ctx, inputs, output):
    params, _, threshold, seeds, slot = inputs
    ctx.save_for_backward(params, seeds)
    ctx.threshold, ctx.slot = threshold, slot


def _backward(ctx, g):
    params, seeds = ctx.saved_tensors
    return backward_op(g, params, ctx.threshold, seeds, ctx.slot), None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)
backward_op.register_autograd(check.no_second_derivative("reparametrize"))

# ---------------------------------------------------------------- public


def reparametrize(
    params: Tensor, z: Tensor, *, dropout: float = 0.0, seeds: Tensor | None = None, slot: int = 0, backend: str
) -> Tensor:
    """[dropout(mu + exp(log_sigma) * eps); dropout(z)]; the module says what is what.

    dropout: probability of zeroing. seeds, slot: see `csrc_triton.philox`; "inductor" takes torch's own generator.
    backend: "eager" and "triton" give the same values, eps and masks included; "triton" on a CPU tensor runs the
    reference. ValueError for a shape, dtype, device or dropout it cannot take.
    """
    check.backend("reparametrize", backend)
    check.shape("reparametrize", "z", z, (None, None, 1, 1), "[N, L, 1, 1]")
    check.shape("reparametrize", "params", params, (z.shape[0], 2 * z.shape[1], 1, 1), "[N, 2L, 1, 1]")
    check.dtype("reparametrize", "params", params, backend)
    if z.dtype != params.dtype:
        raise ValueError(f"reparametrize: z is {z.dtype}: {params.dtype} is needed, as params")
    threshold = philox.dropout_threshold(dropout)
    check.device("reparametrize", params, z=z, seeds=seeds)
    if backend == "inductor":
        keep = philox.torch_keep(params.reshape(-1, *z.shape[1:]), threshold) if threshold else None
        return reference(params, z, torch.randn(z.shape, device=z.device), keep, threshold)
    check.seeds("reparametrize", seeds, slot)
    assert seeds is not None
    if backend == "triton":
        return forward_op(params, z.detach(), threshold, seeds, slot)
    return reference(params, z, *noise(z, seeds, slot, threshold), threshold)
