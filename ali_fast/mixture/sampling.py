"""What trained models make in evaluation mode: samples and the modes they cover, codes, reconstructions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ali_fast.mixture import measures
from ali_fast.mixture.models import Model
from ali_fast.mixture.setting import member_seed

SAMPLES = 10_000
"""As the paper counts modes."""
PACGAN_SAMPLES = 2500
CHUNK = 1000


def normals(seeds: tuple[int, ...], what: str, count: int, dims: int) -> Tensor:
    """float32 [R, count, dims] ~ N(0, I), each member's from its own seed, on the CPU."""
    generators = [torch.Generator().manual_seed(member_seed(what, seed)) for seed in seeds]
    return torch.stack([torch.randn(count, dims, generator=generator) for generator in generators])


def in_evaluation(model: Model, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function` of inputs [R, N, *] with running statistics, without gradients, piece by piece; on the CPU."""
    like = next(model.parameters())
    model.eval()
    try:
        with torch.no_grad():
            chunks = zip(*(tensor.split(CHUNK, dim=1) for tensor in inputs), strict=True)
            return torch.cat([function(*(c.to(like) for c in chunk)).cpu() for chunk in chunks], dim=1)
    finally:
        model.train()


def samples(model: Model, seeds: tuple[int, ...], count: int) -> Tensor:
    """G(z), z ~ N(0, I): float32 [R, count, 2]."""
    return in_evaluation(model, model.decode, normals(seeds, "samples", count, model.sizes.z))


def covered(model: Model, seeds: tuple[int, ...], count: int) -> list[measures.Modes | None]:
    """Each member's coverage; None where its samples are not finite."""
    return [measures.modes(x) if bool(x.isfinite().all()) else None for x in samples(model, seeds, count)]


def encode_and_decode(model: Model, points: Tensor) -> dict[str, Tensor]:
    """Codes q(z) and reconstructions of points [N, 2], prior samples and samples, as many; each float32 [N, 2]."""
    count, sizes = len(points), model.sizes
    eps = normals((0,), "codes", count, model.noise_dims)
    prior = normals((0,), "prior", count, sizes.z)
    codes = in_evaluation(model, model.encode, points[None], eps)
    decoded = in_evaluation(model, model.decode, torch.cat([codes, prior], dim=1))[0]
    return {"codes": codes[0], "reconstructions": decoded[:count], "prior": prior[0], "samples": decoded[count:]}
