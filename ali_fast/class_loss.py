"""The K+1-class game on logits: labelled pairs get their label, unlabelled data any of K classes, samples the last.

After Salimans et al. (2016): D gives K logits l of a pair, the (K+1)-th is fixed at 0. With s = logsumexp(l):

    L_d = mean softplus(-s) over data + mean softplus(s) over samples + mean cross-entropy(l, 0; y) over labelled pairs
    L_g = mean softplus(s) over data + mean softplus(-s) over samples

The row of dL_g/dl is that of dL_d/dl times a factor of the pair: -exp(s) for data, -exp(-s) for samples, 0 for labelled
pairs. So where a discriminator treats pairs independently, one backward serves both players, as with one logit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from csrc_triton.adversarial_loss import LOGIT_LIMIT, AdversarialLoss
from csrc_triton.maps import widened


def class_loss(logits: Tensor, labels: Tensor, scale: Tensor | None = None) -> AdversarialLoss:
    """logits [M + n + M, K]: data, labelled, samples. labels: int64 [n].

    stats [5]: L_d, L_g, mean sigmoid(s) of data and of samples, the cross-entropy in L_d. Seeds [2 M + n, K], times
    `scale` if given; factor [2 M + n]. Computed in float32 (float64 of float64 logits); as in adversarial_loss, |s| is
    at most LOGIT_LIMIT in seed_d and factor.
    """
    wide = widened(logits)
    n = len(labels)
    m = (len(wide) - n) // 2
    s, shares = wide.logsumexp(dim=1), wide.softmax(dim=1)
    data, labelled, samples = s.split([m, n, m])
    missing = F.softplus(labelled).mean() - wide[m : m + n].gather(1, labels[:, None]).mean()
    stats = torch.stack(
        [
            -F.logsigmoid(data).mean() - F.logsigmoid(-samples).mean() + missing,
            -F.logsigmoid(-data).mean() - F.logsigmoid(samples).mean(),
            torch.sigmoid(data).mean(),
            torch.sigmoid(samples).mean(),
            missing,
        ]
    )
    near, nearer = (t.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) for t in (data, samples))
    of_label = (torch.sigmoid(labelled)[:, None] * shares[m : m + n] - F.one_hot(labels, wide.shape[1])) / n
    seed_d = torch.cat(
        [
            -torch.sigmoid(-near)[:, None] * shares[:m] / m,
            of_label,
            torch.sigmoid(nearer)[:, None] * shares[m + n :] / m,
        ]
    )
    seed_g = torch.cat(
        [
            torch.sigmoid(data)[:, None] * shares[:m] / m,
            torch.zeros_like(of_label),
            -torch.sigmoid(-samples)[:, None] * shares[m + n :] / m,
        ]
    )
    factor = torch.cat([-near.exp(), torch.zeros_like(labelled), -(-nearer).exp()])
    if scale is not None:
        seed_d, seed_g = seed_d * scale, seed_g * scale
    return AdversarialLoss(stats, seed_d.to(logits.dtype), seed_g.to(logits.dtype), factor)
