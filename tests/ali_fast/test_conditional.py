"""Conditional ALI: the step and y, and what inference is told."""

import copy

import numpy as np
import pytest
import torch

from ali_fast.condition import Condition, to_y
from ali_fast.errors import InputError
from ali_fast.inference import Inference, normal
from ali_fast.objective import METRICS, conditional
from ali_fast.pixels import to_x
from ali_fast.step import Step

K = 5
KINDS = ("classes", "attributes")


@pytest.fixture
def make(make_small):
    return lambda kind, dtype=torch.float64: make_small(kind, dtype, objective="conditional", y_dim=K)


def samples(model, count, kind="classes", seed=0):
    a, g = model.architecture, torch.Generator().manual_seed(seed)
    shape = (count, a.image_size, a.image_size, a.image_channels)
    y = torch.randint(K, (count,), generator=g)
    if kind == "attributes":
        y = torch.randint(2, (count, K), generator=g, dtype=torch.uint8)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=g), y


def difference(ours, theirs):
    return max(float((a - b).norm() / b.norm().clamp_min(1e-300)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("told", KINDS)
def test_a_step_plays_the_game_on_images_and_their_y(make, kind, told):
    model = make(kind)
    images, y = samples(model, 8, told)
    step = Step(copy.deepcopy(model), learning_rate=1e-3, compile=False)
    torch.manual_seed(3)
    step(images, y)
    torch.manual_seed(3)
    z, seeds = step.noise(8)
    x = to_x(images, model.architecture.image_size, torch.float64)
    expected = conditional(model, x, z.double(), seeds, "two", None, to_y(y, K, torch.float64))
    found = step.read_metrics()
    assert [found[name] for name in METRICS["conditional"]] == pytest.approx(expected.metrics.tolist(), rel=1e-6)
    assert not torch.equal(step.model.embedding.products[0].weight, model.embedding.products[0].weight)


@pytest.mark.parametrize("told", KINDS)
def test_samples_on_the_device_are_taken_with_their_y(make, told):
    images, y = samples(make("maxout"), 20, told)
    streamed = Step(make("maxout"), learning_rate=1e-3, compile=False)
    resident = Step(make("maxout"), learning_rate=1e-3, compile=False, samples=images, samples_y=y)
    for step in (streamed, resident):
        torch.manual_seed(1)
        for rows in torch.arange(18).view(3, 6).flip(1):
            step(*((rows,) if step is resident else (images[rows], y[rows])))
    assert all(torch.equal(a, b) for a, b in zip(streamed.model.parameters(), resident.model.parameters(), strict=True))


def test_the_average_has_an_embedding_too(make):
    step = Step(make("maxout"), learning_rate=1e-3, compile=False, ema=0.5)
    before = step.model.embedding.products[0].weight.detach().clone()
    step(*samples(step.model, 8))
    weight, average = (net.embedding.products[0].weight for net in (step.model, step.shown))
    torch.testing.assert_close(average, (before + weight) / 2)
    assert "embedding.products.0.weight" in step.state_dict()["ema"]


@pytest.mark.slow
@pytest.mark.parametrize("told", KINDS)
def test_compiled_steps_are_eager_steps(make, kind, told):
    steps = [Step(make(kind), learning_rate=1e-3, compile=compiles) for compiles in (False, True)]
    for step in steps:
        torch.manual_seed(6)
        for i in range(10):
            step(*samples(step.model, 8, told, seed=i))
    eager, compiled = (list(step.model.parameters()) for step in steps)
    assert difference(compiled, eager) < 1e-10


# ------------------------------------------------------------------------------------------------------ inference


@pytest.fixture
def ali(make):
    return Inference(make("maxout", torch.float32), (6, 7, 1), Condition("classes", tuple("abcde")))


def pictures(n):
    return np.random.default_rng(n).integers(0, 256, (n, 6, 7, 1), dtype=np.uint8)


def test_labels_and_one_hot_rows_are_the_same_y(ali):
    labels = torch.tensor([0, 4, 4])
    rows = torch.nn.functional.one_hot(labels, K)
    images = pictures(3)
    for y in (labels, labels.int(), labels.numpy()):
        assert torch.equal(ali.sample(3, y=y), ali.sample(3, y=rows))
        assert torch.equal(ali.encode(images, y).mu, ali.encode(images, rows).mu)
        assert torch.equal(ali.reconstruct(images, y), ali.reconstruct(images, rows))
    assert not torch.equal(ali.encode(images, labels).mu, ali.encode(images, (labels + 1) % K).mu)
    assert ali.reconstruction_error(images, labels) != ali.reconstruction_error(images, (labels + 1) % K)


def test_a_long_y_goes_with_its_images(ali):
    y = torch.arange(300) % K
    together, z = ali.sample(300, seed=1, y=y), normal("z", (300, 4), 1)
    for i in (0, 255, 256, 299):
        assert (together[i].int() - ali.decode(z[i : i + 1], y[i : i + 1])[0].int()).abs().max() <= 1


def test_interpolation_goes_from_one_y_to_the_other(ali):
    first, last = pictures(2), pictures(4)[:2]
    ends = torch.tensor([0, 1]), torch.tensor([3, 1])
    way = ali.interpolate(first, last, 3, 5, ends)
    start, end = ali.encode(first, ends[0]).sample(5), ali.encode(last, ends[1]).sample(6)
    half = torch.tensor([[0.5, 0, 0, 0.5, 0], [0, 1, 0, 0, 0]])
    for i, (z, y) in enumerate(((start, ends[0]), ((start + end) / 2, half), (end, ends[1]))):
        assert (way[:, i].int() - ali.decode(z, y).int()).abs().max() <= 1


def test_what_cannot_be_told(ali, make_small):
    refused = {
        None: "this run is conditional: it has to be told the classes of each image, such as a, b, c",
        (0, 1): "y of shape [2] for 3 images",
        (0, 1, 5): "y has classes from 0 to 5: there are 0 to 4",
        (0.0, 1.0, 2.0): "y of shape [3] for 3 images: [N, 5] is expected",
        ((1, 0),) * 3: "y of shape [3, 2] for 3 images",
        3: "y of shape [] for 3 images",
        ((0, 0, 7, 0, 0),) * 3: "y has rows of other values than 0 and 1, one 1 a row",
        ((0, 0, 0, 0, 0),) * 3: "y has rows of other values than 0 and 1, one 1 a row",
        ((0, float("nan"), 1, 0, 0),) * 3: "y has rows of other values than 0 and 1, one 1 a row",
    }
    for y, message in refused.items():
        with pytest.raises(InputError) as caught:
            ali.sample(3, y=None if y is None else torch.tensor(y))
        assert message in str(caught.value)
    marks = Inference(ali.model, (6, 7, 1), Condition("attributes", tuple("abcde")))
    with pytest.raises(InputError, match="the attributes of each image"):
        marks.encode(pictures(3), torch.tensor([0, 1, 2]))
    plain = Inference(make_small("maxout", torch.float32), (6, 7, 1))
    with pytest.raises(InputError, match="a run of objective ali is told nothing of its images"):
        plain.sample(3, y=torch.tensor([0, 1, 2]))
