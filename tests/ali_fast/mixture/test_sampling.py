"""Samples by the plain formulas, each member's from its own seed."""

import torch

from ali_fast.mixture import measures, sampling


def test_samples_are_decoded_normals_with_running_statistics(make_step, rows):
    step = make_step("ali")
    for s in range(5):
        step(rows[s])
    model, seeds = step.model.float(), (7, 8, 9)
    x = sampling.samples(model, seeds, 2500)
    z = sampling.normals(seeds, "samples", 2500, 2)
    h = z
    for layer in model.decoder.layers[:-1]:
        h = (h @ layer.weight - layer.running_mean) / (layer.running_var + 1e-4).sqrt() * layer.scale + layer.shift
        h = h.clamp_min(0)
    last = model.decoder.layers[-1]
    assert torch.allclose(x, h @ last.weight + last.bias, atol=1e-5)
    assert model.training
    alone = sampling.normals(seeds[1:2], "samples", 2500, 2)
    assert torch.equal(alone[0], z[1])
    assert abs(float(z.mean())) < 0.03
    assert sampling.covered(model, seeds, 2500)[2] == measures.modes(x[2])
