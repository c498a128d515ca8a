"""Weight gradients beside the step: the same numbers, and memory that nobody else is given meanwhile."""

import pytest
import torch
import torch.nn.functional as F
from torch._inductor import config as inductor

from ali_fast import weight_gradients
from ali_fast.capture import compiled
from ali_fast.step import Step
from ali_fast.weight_gradients import TakeAside, options

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def calls(monkeypatch):
    """The names of the operations in the graphs that Inductor lowers, as the pass left them."""
    seen = []
    plain = TakeAside.__call__

    def record(self, graph):
        plain(self, graph)
        seen.extend(str(node.target) for node in graph.nodes if node.op == "call_function")

    monkeypatch.setattr(TakeAside, "__call__", record)
    with inductor.patch({"fx_graph_cache": False}):
        yield seen


def inputs():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 9, 9), (6, 4, 3, 3), (6, 5, 3, 3), (7, 5, 9, 9)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def loss(h, kernel, transposed_kernel, matrix):
    y = F.conv_transpose2d(F.conv2d(h, kernel, stride=2), transposed_kernel, stride=2)
    rows = matrix.permute(0, 2, 3, 1).flatten(1)  # as a convolution of full extent
    return (y.permute(0, 2, 3, 1).flatten(1) @ rows.t()).square().sum()


@pytest.mark.parametrize("of_h", [True, False])
def test_products_that_lead_to_an_output_alone_are_taken_aside(calls, of_h):
    def gradients(h, *weights):
        return torch.autograd.grad(loss(h, *weights), [*weights, h] if of_h else weights)

    given = inputs()
    found = compiled(gradients, CPU, options())(*given)
    torch.testing.assert_close(found, gradients(*given), rtol=1e-10, atol=1e-10)
    assert calls.count("ali_fast.convolution_weight_aside.default") == 2
    assert calls.count("ali_fast.product_aside.default") == 1
    assert calls.count("aten.convolution_backward.default") == 1 + of_h, "a map's gradient stays"


def test_one_that_is_needed_stays_in_line(calls):
    def read(h, kernel):
        gradient = torch.autograd.grad(F.conv2d(h, kernel).square().sum(), kernel)[0]
        product = h.flatten(1) @ h.flatten(1).t()
        return gradient * 2, product.sum()

    h, kernel, *_ = inputs()
    found = compiled(read, CPU, options())(h, kernel)
    torch.testing.assert_close(found, read(h, kernel), rtol=1e-10, atol=1e-10)
    assert calls
    assert not [name for name in calls if "aside" in name]


def test_outputs_that_are_read_before_the_join_stay_in_line(calls):
    class Program:
        sums = torch.zeros((), dtype=torch.float64)

        def __call__(self, a, b):
            self.sums = self.sums + a.sum()  # Dynamo returns it behind the others
            return (a @ a).t().unflatten(0, (1, 5)), b @ a, a @ b

    a, b = torch.randn(2, 5, 5, dtype=torch.float64)
    for in_line in (0, 2, 3):
        calls.clear()
        found = compiled(Program().__call__, CPU, options(in_line))(a, b)
        torch.testing.assert_close(found, Program()(a, b))
        assert calls.count("ali_fast.product_aside.default") == 3 - in_line


@pytest.mark.parametrize("kind", ["maxout", "norm"])
def test_what_e_and_g_wait_for_stays_in_line(make_small, monkeypatch, kind):
    """By the route on which nothing is computed from D's gradients of its inputs before E and G read them."""
    sources = []
    plain = TakeAside.__call__

    def source(node):
        is_view = node.op == "call_function" and ("view" in str(node.target) or weight_gradients._is_view(node))
        return source(node.args[0]) if is_view else str(node.target)

    def record(self, graph):
        plain(self, graph)
        *_, output = graph.nodes
        sources.extend(source(node) for node in output.args[0][: self.in_line])

    monkeypatch.setattr(TakeAside, "__call__", record)
    with inductor.patch({"fx_graph_cache": False}):
        model = make_small(kind, torch.float64)
        step = Step(model, learning_rate=1e-3, route="two", overlap_weight_gradients=True, overlap_encoder=True)
        size, channels = step.model.architecture.image_size, step.model.architecture.image_channels
        step(torch.randint(256, (4, size, size, channels), dtype=torch.uint8))
    assert len(sources) == 2, "grad_x, grad_z"
    assert not [name for name in sources if "aside" in name]


def test_a_failed_step_leaves_nothing_to_wait_for(make_small, monkeypatch):
    monkeypatch.setattr(weight_gradients, "_busy", {"the stream of a step that ran out of memory"})
    step = Step(make_small("maxout", torch.float64), learning_rate=1e-3, compile=False)
    size, channels = step.model.architecture.image_size, step.model.architecture.image_channels
    step(torch.randint(256, (4, size, size, channels), dtype=torch.uint8))
    assert weight_gradients.all_joined()


def test_one_that_is_copied_stays_in_line(calls):
    def read(a, b):
        return (a @ b).t().reshape(25)

    a, b = torch.randn(2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(compiled(read, CPU, options())(a, b), read(a, b))
    assert calls
    assert not [name for name in calls if "aside" in name]


def test_what_a_forward_saves_for_its_backward_stays_in_line(calls):
    def forward(h, matrix):
        return (h @ matrix).exp()

    h, matrix = (tensor.detach().requires_grad_() for tensor in torch.randn(2, 5, 5, dtype=torch.float64))
    y = compiled(forward, CPU, options())(h, matrix)
    assert calls
    assert not [name for name in calls if "aside" in name]
    found = torch.autograd.grad(y.sum(), [h, matrix])
    torch.testing.assert_close(found, torch.autograd.grad(forward(h, matrix).sum(), [h, matrix]))
    assert calls.count("ali_fast.product_aside.default") == 2, "the backward's are"


@pytest.mark.parametrize(("kind", "branches"), [("maxout", False), ("norm", True)])
def test_a_step_moves_as_without(make_small, kind, branches):
    steps = []
    for aside in (False, True):
        torch.manual_seed(0)
        steps.append(
            Step(
                make_small(kind, torch.float64),
                learning_rate=1e-3,
                overlap_weight_gradients=aside,
                overlap_encoder=aside and branches,
            )
        )
        size, channels = steps[-1].model.architecture.image_size, steps[-1].model.architecture.image_channels
        for _ in range(3):
            steps[-1](torch.randint(256, (4, size, size, channels), dtype=torch.uint8))
    for ours, theirs in zip(*(step.model.parameters() for step in steps), strict=True):
        assert float((ours - theirs).detach().norm()) <= 1e-10 * float(theirs.detach().norm())


@needs_gpu
@pytest.mark.gpu
def test_operands_are_given_to_nobody_before_the_product_is_through():
    kept = torch.randn(512, 512, device="cuda")
    expected = kept @ kept
    torch.ops.ali_fast.product_aside(kept, kept)  # a first call takes longer than any delay
    weight_gradients.join()
    torch.cuda.synchronize()
    for _ in range(2):
        side = weight_gradients.forked()
        with torch.cuda.stream(side):
            torch.cuda._sleep(500_000_000)  # cycles: a quarter of a second
        operand = kept.clone()
        where = operand.data_ptr()
        product = torch.ops.ali_fast.product_aside(operand, kept)
        del operand
        others = [torch.zeros(512, 512, device="cuda") for _ in range(4)]
        assert not side.query(), "it is delayed"
        assert where not in [other.data_ptr() for other in others]
        weight_gradients.join()
        torch.testing.assert_close(product, expected)
        torch.cuda.synchronize()
    assert weight_gradients.all_joined()


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("kernels", ["triton", "inductor"])
def test_captured_it_is_uncaptured_bit_for_bit_and_near_the_step_in_line(make_small, kind, dtype, branches, kernels):
    """Near where the noise is the same: with Inductor's kernels other programs draw other noise."""
    steps = []
    for more in ({}, {"overlap_weight_gradients": True}, {"overlap_weight_gradients": True, "cuda_graph": True}):
        model = make_small(kind, torch.float32, kernels).cuda()
        step = Step(model, learning_rate=1e-3, dtype=dtype, overlap_encoder=branches, **more)
        steps.append(step)
        torch.manual_seed(1)
        a = model.architecture
        for seed in range(8):
            generator = torch.Generator().manual_seed(seed)
            shape = (8, a.image_size, a.image_size, a.image_channels)
            step(torch.randint(256, shape, generator=generator, dtype=torch.uint8).cuda())
    line, plain, captured = (torch.cat([p.detach().flatten() for p in step.model.parameters()]) for step in steps)
    assert torch.equal(plain, captured)
    assert steps[1].read_metrics() == steps[2].read_metrics()
    if kernels == "triton":
        assert float((line - plain).norm() / line.norm()) < (1e-4 if dtype == torch.float32 else 3e-2)
