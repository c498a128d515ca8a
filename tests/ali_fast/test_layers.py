"""A row's product, however it is computed, against torch's own convolutions."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from ali_fast import capture, im2col
from ali_fast.arch import Row, conv, conv_bn, layout, maxout
from ali_fast.layers import BATCH_NORM_EPS, Convolution, Normalized, takes_halves

CASES = [
    ("conv", 1, 1, 5, "pointwise"),
    ("conv", 4, 1, 4, "full_extent"),
    ("conv", 4, 2, 4, "full_extent"),
    ("conv", 4, 2, 5, "convolution"),  # one pixel comes out, though the kernel does not cover all
    ("conv", 3, 2, 8, "convolution"),
    ("transposed", 1, 1, 6, "transposed"),
    ("transposed", 4, 1, 1, "from_one_pixel"),
    ("transposed", 3, 2, 4, "transposed"),
]


@pytest.mark.parametrize("maps", [3, 6])
@pytest.mark.parametrize("activation", ["leaky_relu", "linear"])
@pytest.mark.parametrize(("operation", "kernel", "stride", "size", "route"), CASES)
def test_product(operation, kernel, stride, size, route, activation, maps):
    row = Row(operation=operation, kernel=kernel, stride=stride, maps=maps, activation=activation, bias="tied")
    generator = torch.Generator().manual_seed(0)
    (place,) = layout((row,), 6, size)
    product = Convolution(place).double()
    with torch.no_grad():
        for p in product.parameters():
            p.normal_(generator=generator)
    h = torch.randn(3, 6, size, size, dtype=torch.float64, generator=generator)
    h = h.to(memory_format=torch.channels_last).requires_grad_()
    if route == "from_one_pixel" and activation == "linear":
        route = "transposed"  # which adds the bias
    assert product.product is getattr(Convolution, route)
    inputs = [h, *product.parameters()]
    function = F.conv2d if operation == "conv" else F.conv_transpose2d
    ours, theirs = product(h), function(h, product.weight, product.bias, stride)
    dy = torch.randn(theirs.shape, dtype=torch.float64, generator=generator)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(y, inputs, dy) for y in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_frozen_norm_rounds_its_result_alone(make_small, dtype):
    """Not the statistics: a mean far from 0 in bf16 is off by a hundredth of what is left of the map."""
    norm = next(module for module in make_small("norm", torch.float32).modules() if isinstance(module, Normalized))
    generator = torch.Generator().manual_seed(0)
    h = (5 + torch.randn(64, norm.maps, 3, 3, generator=generator)).to(dtype)
    norm.running_mean.copy_(h.float().mean(dim=(0, 2, 3)))
    norm.running_var.copy_(h.float().var(dim=(0, 2, 3)))
    in_float64 = (p.detach().double() for p in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    expected = F.batch_norm(h.double(), *in_float64, eps=BATCH_NORM_EPS)
    found = norm.normalize(h)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


# D(x) of other forms than the small networks': up to the first batch norm or, where there is none, to the end.
D_X = {
    "patches": (conv(1, 1, 64), maxout(4, 2, 128, 0.2), conv(2, 1, 16), conv_bn(2, 1, 10), conv_bn(1, 1, 9)),
    "norm first": (conv_bn(3, 1, 6), conv(3, 1, 7), conv(4, 1, 8)),
    "full extent": (conv_bn(8, 1, 12),),
    "one pixel": (conv(1, 1, 6), maxout(8, 1, 10, 0.2), maxout(1, 1, 8, 0.2)),
}
LINKS = {"maxout": 3, "norm": 2, "patches": 4, "norm first": 1, "full extent": 1, "one pixel": 3}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("form", LINKS)
def test_some_images_gradient_is_autograds(make_small, form, compiled, monkeypatch):
    """Of each product up to the first batch norm, of the last two of six images."""
    monkeypatch.setattr(im2col, "pays", lambda device, channels, k, stride, size: channels == 64)
    d = make_small(form if form not in D_X else "maxout", d_x=D_X.get(form)).discriminator
    images, seeds = draw_images(d, 6).requires_grad_(), torch.arange(100)

    def pairs():
        links = []
        d.features(images, seeds, [], links)
        yield torch.tensor([link.factor.dim() for link in links])
        for link in links:
            dy = torch.cos(link.y.detach())
            yield link.gradient(dy[4:])
            yield torch.autograd.grad([link.y], [link.h], [dy], retain_graph=True)[0][4:]

    dims, *found = capture.compiled(lambda: tuple(pairs()), images.device)() if compiled else tuple(pairs())
    assert dims.tolist() == ([4, 2, 2, 4] if form == "patches" else [4] * LINKS[form])
    assert len(found) == 2 * LINKS[form]
    for ours, autograds in zip(found[::2], found[1::2], strict=True):
        assert (ours - autograds).norm() < 1e-12 * autograds.norm()


@pytest.mark.parametrize("kernels", ["eager", "triton"])
def test_a_compiled_step_computes_maxouts_maps_in_halves_on_a_cpu(make_small, kernels):
    """With dropout of either order and a tied bias; gradients come as the parameters are stored."""
    dtype, bound = (torch.float64, 1e-12) if kernels == "eager" else (torch.float32, 1e-4)
    d = make_small("maxout", dtype, kernels).discriminator
    images, seeds = draw_images(d, 6).to(dtype).requires_grad_(), torch.arange(100)
    inputs = [images, *d.x.parameters()]
    assert [product.halves for product in d.x.products] == [True, True, False], "the last map is one pixel"

    def step():
        h = d.features(images, seeds, [])
        return torch.tensor(takes_halves(h.device)), h.detach(), *torch.autograd.grad(h.square().sum(), inputs)

    taken, *eager = step()
    taken_compiled, *ours = capture.compiled(step, images.device)()
    assert taken_compiled and not taken
    for a, b in zip(ours, eager, strict=True):
        assert (a - b).norm() < bound * b.norm()


def draw_images(discriminator, count):
    channels, size = discriminator.x.products[0].weight.shape[1], 8
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, size, size, dtype=torch.float64, generator=generator)
    return images.to(memory_format=torch.channels_last)


def test_only_a_cpu_takes_halves(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert takes_halves(torch.device("cpu"))
    assert not takes_halves(torch.device("cuda"))


def test_a_model_that_is_let_go_is_gone_at_once(make_small):
    """Not when the collector comes by: on a GPU its memory is wanted."""
    model = make_small("maxout", torch.float32)
    gone = weakref.ref(model.encoder.products[0].weight)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
