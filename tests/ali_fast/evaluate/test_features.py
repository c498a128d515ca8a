import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ali_fast import networks
from ali_fast.evaluate import features
from ali_fast.kernels import resolve
from ali_fast.model import ALI
from ali_fast.pixels import to_x


def images(count, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def give_statistics(model):
    generator = torch.Generator().manual_seed(3)
    for buffer in model.buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval()


def by_hand(model, batch):
    """Every hidden layer's batch norm and mu, with torch's own functions from the tables."""
    a, encoder, kept = model.architecture, model.encoder, []
    h = to_x(torch.from_numpy(batch), a.image_size)
    for row, product, norm in zip(a.encoder, encoder.products, encoder.activations, strict=True):
        h = F.conv2d(h, product.weight, product.bias, row.stride)
        if row.norm:
            h = F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, 1e-4)
            kept.append(h)
            h = F.leaky_relu(h, a.slope)
    layers = [*kept[-3:], h[:, : a.z_dim]]
    return torch.cat([layer.reshape(len(batch), -1) for layer in layers], 1).detach().numpy()


def test_hidden_layers_before_the_nonlinearity_and_mu(make_small):
    model = give_statistics(make_small("norm", torch.float32))
    batch = images(300)  # more than one chunk
    found = features.encoder_features(model)(batch)
    assert found.dtype == np.float32
    assert found.shape == (300, 12 * 36 + 10 + 5)
    np.testing.assert_allclose(found, by_hand(model, batch), rtol=1e-4, atol=1e-5)


def test_only_the_last_three_hidden_layers():
    model = ALI(networks.FASHION_MNIST_SMALL, resolve("eager", "cpu"))
    model.initialize(torch.Generator().manual_seed(0))
    batch = images(5, (28, 28, 1))
    found = features.encoder_features(give_statistics(model))(batch)
    assert found.shape == (5, 64 * 36 + 128 * 16 + 256 + 64)  # not the first one's 32 * 225
    np.testing.assert_allclose(found, by_hand(model, batch), rtol=1e-4, atol=1e-5)


def test_an_untrained_encoder_is_fresh_and_normalizes_what_it_sees(make_small):
    trained = give_statistics(make_small("norm", torch.float32))
    before = {name: t.clone() for name, t in trained.state_dict().items()}
    fresh = features.untrained(trained, images(64), seed=1)
    assert all(torch.equal(t, before[name]) for name, t in trained.state_dict().items())
    assert fresh.architecture is trained.architecture
    weight = fresh.encoder.products[0].weight
    assert float(weight.detach().std()) == pytest.approx(fresh.architecture.init_std, rel=0.1)
    hidden = features.encoder_features(fresh)(images(64))[:, : 12 * 36].reshape(64, 12, 36)
    np.testing.assert_allclose(hidden.mean(axis=(0, 2)), 0, atol=1e-3)  # the maps' own statistics were taken
    assert 0.7 < hidden.std(axis=(0, 2)).min() < hidden.std(axis=(0, 2)).max() < 1.01
    again = features.untrained(trained, images(64), seed=1)
    assert torch.equal(again.encoder.products[0].weight, weight)


def test_pixels_and_principal_components():
    batch = images(200, (5, 4, 1))
    raw = features.pixels(batch)
    assert raw.shape == (200, 20)
    assert raw.max() <= 1
    np.testing.assert_allclose(raw[3], batch[3].ravel() / 255, rtol=1e-6)
    found = features.principal_components(batch)(batch)
    centred = raw - raw.mean(0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.99) + 1)
    assert found.shape == (200, needed)
    np.testing.assert_allclose((found**2).sum(0), variances[:needed], rtol=1e-4)
