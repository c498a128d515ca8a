"""Every op as a step runs it: compiled, in a CUDA graph, on two streams, in fp16 with a loss scale, repeatedly."""

import itertools

import pytest
import torch
from comparing import DTYPES, FP16, error, random_map, random_vector, some_seeds
from small_game import new_game, play

from csrc_triton.adversarial_loss import adversarial_loss
from csrc_triton.batch_norm import batch_norm
from csrc_triton.bias_act import bias_act
from csrc_triton.maxout import maxout
from csrc_triton.reparametrize import reparametrize


def _with_gradients(outputs, inputs, scale):
    """Outputs, and the gradients for a fixed cotangent of the first, made on the device (a capture forbids copies)."""
    y = outputs[0]
    ramp = torch.arange(y.numel(), device=y.device, dtype=torch.float32)
    dy = torch.sin(ramp).view(y.shape[0], *y.shape[2:], y.shape[1]).permute(0, 3, 1, 2)
    return [*outputs, *torch.autograd.grad(y, inputs, (dy * scale).to(y.dtype))]


def _batch_norm(dtype, backend, shape=(16, 64, 14, 14), dropout=0.2):
    x, w = random_map(shape, dtype, "cuda", mean=0.5), random_vector(shape[1], "cuda", mean=1, std=0.1)
    inputs = [t.requires_grad_() for t in (x, w, random_vector(shape[1], "cuda", seed=2))]
    return lambda seeds, scale=1.0: _with_gradients(
        batch_norm(*inputs, 1e-4, 0.1, dropout=dropout, seeds=seeds, slot=0, backend=backend), inputs, scale
    )


def _maxout(dtype, backend):
    inputs = [random_map((16, 64, 10, 10), dtype, "cuda").requires_grad_(), random_vector(64, "cuda").requires_grad_()]
    return lambda seeds, scale=1.0: _with_gradients(
        [maxout(*inputs, dropout=0.5, seeds=seeds, slot=1, backend=backend)], inputs, scale
    )


def _bias_act(dtype, backend):
    inputs = [random_map((16, 64, 14, 14), dtype, "cuda").requires_grad_(), random_vector(64, "cuda").requires_grad_()]
    return lambda seeds, scale=1.0: _with_gradients(
        [bias_act(*inputs, 0.1, dropout=0.2, seeds=seeds, slot=2, backend=backend)], inputs, scale
    )


def _reparametrize(dtype, backend):
    params, z = random_map((100, 128, 1, 1), dtype, "cuda"), random_map((100, 64, 1, 1), dtype, "cuda", seed=2)
    params.requires_grad_()
    return lambda seeds, scale=1.0: _with_gradients(
        [reparametrize(params, z, dropout=0.2, seeds=seeds, slot=3, backend=backend)], [params], scale
    )


def _adversarial_loss(dtype, backend):
    logits = random_map((200, 1, 1, 1), dtype, "cuda", std=3).flatten()
    return lambda seeds, scale=1.0: list(adversarial_loss(logits, backend=backend))


OPS = {
    "batch_norm": _batch_norm,
    "batch_norm of a 1x1 map": lambda dtype, backend: _batch_norm(dtype, backend, (100, 512, 1, 1), 0.0),
    "maxout": _maxout,
    "bias_act": _bias_act,
    "reparametrize": _reparametrize,
    "adversarial_loss": _adversarial_loss,
}
RANDOM = [name for name in OPS if name not in ("adversarial_loss", "batch_norm of a 1x1 map")]
every_op = pytest.mark.parametrize("op", OPS)


@every_op
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_against_the_reference(op, dtype):
    """Masks and codes are equal by value; a batch norm's few elements on the kink may differ."""
    seeds = some_seeds("cuda")
    bound = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    for got, want in zip(OPS[op](dtype, "triton")(seeds), OPS[op](dtype, "eager")(seeds), strict=True):
        off = (got.double() - want.double()).abs() > bound * want.double().abs().max()
        assert off.double().mean() < (1e-3 if op.startswith("batch_norm") else 1e-9)


@every_op
def test_repeats_to_the_bit(op):
    run, seeds = OPS[op](torch.bfloat16, "triton"), some_seeds("cuda")
    first = run(seeds)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first, run(seeds), strict=True))


@every_op
def test_captured_replays_equal_eager(op):
    """Three replays, seeds drawn inside: each equals an eager run on the seeds it drew, and no two draw the same."""
    run = OPS[op](torch.bfloat16, "triton")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(some_seeds("cuda"))
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = torch.randint(2**63 - 1, (4,), device="cuda")
        outputs = run(drawn)
    results = []
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        results.append((drawn.clone(), [t.detach().clone() for t in outputs]))
    for seeds, replayed in results:
        assert all(torch.equal(a, b) for a, b in zip(replayed, run(seeds), strict=True))
    for (seeds, replayed), (next_seeds, next_replayed) in itertools.pairwise(results):
        assert not torch.equal(seeds, next_seeds)
        assert op not in RANDOM or not torch.equal(replayed[0], next_replayed[0])


@every_op
def test_two_streams(op):
    """No scratch memory is shared between launches in flight."""
    run, seeds = OPS[op](torch.bfloat16, "triton"), [some_seeds("cuda"), some_seeds("cuda") + 1]
    want = [run(s) for s in seeds]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    got = [[], []]
    for _ in range(20):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                got[i] = run(seeds[i])
    torch.cuda.synchronize()
    for a, b in zip(got, want, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("op", [name for name in OPS if name != "adversarial_loss"])
def test_scaled_fp16_gradients(op):
    """A loss scale passes through the backward: gradients are linear in it, and finite."""
    run, seeds = OPS[op](FP16, "triton"), some_seeds("cuda")
    outputs = len(run(seeds)) - {"reparametrize": 1, "maxout": 2, "bias_act": 2}.get(op, 3)
    for plain, scaled in zip(run(seeds)[outputs:], run(seeds, 64.0)[outputs:], strict=True):
        assert scaled.isfinite().all() and error(scaled.double() / 64, plain) < 2e-3


def test_grad_scaler_skips_an_overflow_and_then_steps():
    """torch.amp.GradScaler around an op: an infinite gradient skips the update, a finite one makes it."""
    x, seeds = random_map((8, 16, 6, 6), FP16, "cuda"), some_seeds("cuda")
    bias = torch.nn.Parameter(torch.zeros(16, device="cuda"))
    optimizer = torch.optim.Adam([bias], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    skipped = 0
    for _ in range(40):
        optimizer.zero_grad()
        y = bias_act(x, bias, 0.1, dropout=0.2, seeds=seeds, backend="triton")
        scaler.scale(y.float().square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        if bias.any():
            break
        skipped += 1
    assert skipped and bias.all() and bias.isfinite().all()


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_whole_game_compiled_and_captured():
    """The game by compiled kernels equals the CPU's eager one on the same noise; its replays equal it to the bit."""
    want = play(*new_game("cpu"), "eager")
    game = new_game("cuda")
    compiled = torch.compile(play, fullgraph=True)
    got = compiled(*game, "triton")
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = compiled(*game, "triton")
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(captured, got, strict=True))
