import itertools

import numpy as np
import pytest
import torch

from ali_fast.errors import InputError
from ali_fast.inference import Codes, Inference, normal


@pytest.fixture
def ali(make_small):
    return Inference(make_small("maxout", torch.float32), (6, 7, 1))


def images(n, shape=(6, 7, 1)):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_shapes_and_types(ali):
    codes = ali.encode(images(3))
    assert codes.mu.shape == codes.log_sigma.shape == (3, 4)
    assert codes.mu.dtype == torch.float32
    for drawn in (ali.sample(5), ali.decode(codes.mu), ali.reconstruct(images(5))):
        assert drawn.dtype == torch.uint8
        assert drawn.shape[1:] == (6, 7, 1)
    assert ali.interpolate(images(2), images(2), steps=4).shape == (2, 4, 6, 7, 1)


def test_against_the_networks_by_hand(ali):
    """Padding, range and cut, written again in numpy around the bare networks."""
    batch = images(3)
    padded = np.zeros((3, 8, 8, 1), np.float32)
    padded[:, 1:7, 0:7] = batch / np.float32(255)  # (8 - 6) // 2 above, (8 - 7) // 2 to the left
    model = ali.model.eval()
    with torch.no_grad():
        mu, log_sigma = model.infer(torch.from_numpy(padded).permute(0, 3, 1, 2))
        x_tilde = model.decoder(mu)
    model.train()
    codes = ali.encode(batch)
    torch.testing.assert_close(codes.mu, mu[:, :, 0, 0])
    torch.testing.assert_close(codes.log_sigma, log_sigma[:, :, 0, 0])
    expected = np.rint(x_tilde.permute(0, 2, 3, 1).numpy() * 255)[:, 1:7, 0:7]
    found = ali.reconstruct(batch).numpy().astype(float)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01
    error = ((found - batch) ** 2).mean() / 255**2
    assert ali.reconstruction_error(batch) == pytest.approx(error, rel=1e-12)


def test_a_model_in_training_is_left_as_it_was(ali):
    before = {name: tensor.clone() for name, tensor in ali.model.state_dict().items()}
    torch.manual_seed(3)
    ali.sample(4)
    ali.reconstruct(images(4))
    assert ali.model.training
    assert all(module.training for module in ali.model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ali.model.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))  # the run's noise is not touched


def test_a_result_does_not_depend_on_its_batch(ali):
    batch = images(300)
    together = ali.encode(batch).mu
    alone = torch.cat([ali.encode(batch[i : i + 1]).mu for i in (0, 255, 256, 299)])
    torch.testing.assert_close(together[[0, 255, 256, 299]], alone, rtol=1e-5, atol=1e-5)


def test_sampling_is_by_seed(ali):
    assert torch.equal(ali.sample(3, seed=1), ali.sample(3, seed=1))
    draws = [normal(what, (3, 4), seed) for what in ("z", "eps") for seed in (1, 2)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    codes = Codes(torch.ones(1000, 4), torch.full((1000, 4), np.log(2.0)))
    drawn = codes.sample(0)
    assert drawn.mean().item() == pytest.approx(1.0, abs=0.1)
    assert drawn.std().item() == pytest.approx(2.0, abs=0.1)


def test_interpolation_ends_at_the_sampled_codes(ali):
    first, last = images(2), images(4)[:2]
    way = ali.interpolate(first, last, steps=3, seed=5)
    start, end = ali.encode(first).sample(5), ali.encode(last).sample(6)
    for i, z in enumerate((start, (start + end) / 2, end)):
        assert (way[:, i].int() - ali.decode(z).int()).abs().max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 6, 7, 1), np.float32), images(2, (7, 6, 1)), images(2, (6, 7, 3)), np.zeros((6, 7), np.uint8)],
)
def test_wrong_images_are_named(ali, wrong):
    with pytest.raises(InputError, match=r"torch.uint8 \[N, 6, 7, 1\] is expected"):
        ali.encode(wrong)


def test_gray_images_may_lack_the_channel(ali):
    batch = images(2)
    assert torch.equal(ali.encode(batch).mu, ali.encode(batch[..., 0]).mu)


def test_wrong_codes_are_named(ali):
    with pytest.raises(InputError, match=r"\[N, 4\] is expected"):
        ali.decode(torch.zeros(3, 5))


def test_other_nonsense_is_named(ali):
    with pytest.raises(InputError, match="0 samples"):
        ali.sample(0)
    images = torch.zeros(4, *ali.image_shape, dtype=torch.uint8)
    with pytest.raises(InputError, match="from 4 images to 1"):
        ali.interpolate(images, images[:1])
    with pytest.raises(InputError, match="is expected"):
        ali.reconstruction_error(images[:0])
    for n in (2.5, "3"):
        with pytest.raises(InputError, match="a whole number, at least 1"):
            ali.sample(n)
    for steps in (0, -1, 2.5):
        with pytest.raises(InputError, match="a whole number, at least 1"):
            ali.interpolate(images, images, steps)
    for nothing in (None, "x", np.array([None])):
        with pytest.raises(InputError, match="a tensor or array of numbers is expected"):
            ali.encode(nothing)
    with pytest.raises(InputError, match=r"\[0, 4\]: \[N, 4\] is expected"):
        ali.decode(np.zeros((0, 4)))
    with pytest.raises(InputError, match=r"torch.uint8 \[6, 7, 2\]:"):  # as it was given
        ali.encode(images[0].expand(6, 7, 2))
    with pytest.raises(InputError, match="has no classes: semi-supervised has"):
        ali.classify(images)


def test_labels_of_another_shape_are_named(make_small):
    ali = Inference(make_small("maxout", torch.float32, objective="semi-supervised", classes=3), (6, 7, 1))
    given, right = images(5), ali.classify(images(5))
    assert ali.classification_error(given, right) == 0
    assert ali.classification_error(given, right.numpy().astype(np.uint16)) == 0
    for wrong in (right[:, None], right[:1], right[:3], right[0], right.float(), torch.eye(5, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"for 5 images: a whole number of each is expected"):
            ali.classification_error(given, wrong)


@pytest.mark.filterwarnings("error")
def test_arrays_that_torch_does_not_take_as_they_are(ali):
    given, z = images(2), np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    expected = ali.encode(given).mu, ali.decode(z)
    kept = given.copy()
    kept.flags.writeable = False
    assert torch.equal(ali.encode(kept).mu, expected[0])
    assert torch.equal(ali.decode(z.astype(">f4")), expected[1])
    with pytest.raises(InputError, match=r"codes of torch.complex64 \[2, 4\]: "):
        ali.decode(z.astype(np.complex64))
    with pytest.raises(InputError, match="images of type NoneType"):
        ali.interpolate(None, given)


def test_a_flipped_array_is_an_array(ali):
    batch = images(3)
    assert torch.equal(ali.encode(batch[:, ::-1]).mu, ali.encode(batch[:, ::-1].copy()).mu)
