"""Counted arithmetic against the tables of the networks, layer by layer."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch._dynamo.config
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter
from torch.utils.flop_counter import FlopCounterMode

from ali_fast import presets
from ali_fast.arch import layout
from profiles.flops import COUNTED, our_step, step_gflop, usual_gflop


def products(table, channels, size, batch):
    """Floating-point operations of each row's product, forward; each of its two gradients costs the same."""
    return [2 * batch * place.multiply_adds for place in layout(table, channels, size)]


def stacks(preset):
    """E, G, D(x), and D(z) with D(x, z); D sees every pair."""
    a, batch = preset.architecture, preset.batch_size
    head = products(a.discriminator_z, a.z_dim, 1, 2 * batch) + products(
        a.discriminator_xz, a.joint_channels, 1, 2 * batch
    )
    return (
        products(a.encoder, a.image_channels, a.image_size, batch),
        products(a.decoder, a.z_dim, 1, batch),
        products(a.discriminator_x, a.image_channels, a.image_size, 2 * batch),
        head,
    )


def learn(stack):
    """Forward, weight gradients, and data gradients of all but the first layer: nobody reads x's and z's."""
    return 3 * sum(stack) - stack[0]


def ours(preset, route=None):
    """One forward, and once each gradient that somebody reads, of the first convolution's input at x_tilde alone."""
    encoder, decoder, d_x, head = stacks(preset)
    work = learn(encoder) + learn(decoder) + learn(d_x) + 3 * sum(head)
    route = route or ("one" if preset.architecture.pairs_independent else "split")
    if route == "one":
        work += d_x[0] / 2
    else:  # D(x) again, for E and G: no weight gradients, and up to the first batch norm of half the pairs
        norms = [row.norm for row in preset.architecture.discriminator_x]
        alone = norms.index(True) + 1 if any(norms) else len(norms)
        work += sum(d_x) - sum(d_x[:alone]) / 2
    if route == "two":  # and the head: D's own way back stops before z
        work += sum(head) - head[0]
    return work / 1e9


def usual(preset):
    """E and G twice, learning once; D twice, learning once for itself and once for nobody.

    The second time its gradients go on to x_tilde and z_hat: of half the pairs.
    """
    encoder, decoder, d_x, head = stacks(preset)
    generator = sum(encoder) + sum(decoder) + learn(encoder) + learn(decoder)
    return (generator + learn(d_x) + learn(head) + 3 * sum(d_x) - d_x[0] / 2 + 3 * sum(head) - head[0] / 2) / 1e9


PAPERS = [preset for preset in presets.PRESETS if preset.from_paper]


LARGE = [pytest.mark.slow]  # 64x64 pixels


@pytest.mark.parametrize(
    "preset",
    [pytest.param(p, id=p.name, marks=LARGE * (p.architecture.image_size == 64)) for p in PAPERS],
)
def test_counted_is_what_the_tables_say(preset):
    assert step_gflop(preset) == pytest.approx(ours(preset), rel=1e-9)
    assert usual_gflop(preset, preset.batch_size) == pytest.approx(usual(preset), rel=1e-9)


def test_the_step_of_cifar10_is_two_thirds_of_the_usual_one():
    (preset,) = (preset for preset in PAPERS if preset.name == "cifar10")
    assert ours(preset) <= 69.2
    assert 104 < usual(preset) < 106


class Traced(BaseException):
    """Not an Exception: those torch.compile would wrap."""

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor]):
        self.graph, self.inputs = graph, inputs


def stop(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable:
    raise Traced(graph, inputs)


def traced_gflop(preset, route):
    """Of what our step asks of a compiler: of a product and its gradients, what nobody reads is counted, too."""
    step, a = our_step(preset, route), preset.architecture
    images = torch.zeros(COUNTED, a.image_size, a.image_size, a.image_channels, dtype=torch.uint8)
    torch._dynamo.reset()
    trace = torch.compile(step._turn, fullgraph=True, dynamic=False, backend=aot_autograd(fw_compiler=stop))
    try:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            trace(images, *step.noise(COUNTED))
    except Traced as traced:
        fake = next(t for t in traced.inputs if isinstance(t, FakeTensor))
        with fake.fake_mode, FlopCounterMode(display=False) as counter:
            Interpreter(traced.graph).run(*traced.inputs)
        return counter.get_total_flops() * preset.batch_size / COUNTED / 1e9
    raise AssertionError("torch.compile asked for no graph")


@pytest.mark.parametrize(
    ("name", "route"),
    [("digits", "one")]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in (("digits", "two"), ("fashion-mnist", "split"))],
)
def test_the_traced_step_does_nothing_that_nobody_reads(name, route):
    """No gradient to the images or to z, each weight's gradient once, and none on the second way through D(x)."""
    (preset,) = (preset for preset in presets.PRESETS if preset.name == name)
    assert traced_gflop(preset, route) == pytest.approx(ours(preset, route), rel=1e-9)
