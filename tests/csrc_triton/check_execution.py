"""Every op as a step runs it: captured in a CUDA graph, on two streams, in fp16 with a loss scale, repeatedly.

On a GPU; and rehearsed on CPU tensors in the interpreter, with stand-ins for streams and graphs, on smaller maps.
"""

import itertools

import torch
from comparing import FP16, error, random_map, random_vector, some_seeds
from small_game import new_game, play

from csrc_triton.adversarial_loss import adversarial_loss
from csrc_triton.batch_norm import batch_norm
from csrc_triton.bias_act import bias_act
from csrc_triton.maxout import maxout
from csrc_triton.reparametrize import reparametrize


def _shape(device):
    return (16, 64, 14, 14) if device == "cuda" else (2, 16, 5, 5)


def _repetitions(device):
    return 20 if device == "cuda" else 1


def _with_gradients(outputs, inputs, scale):
    """Outputs, and the gradients for a fixed cotangent of the first, made on the device (a capture forbids copies)."""
    y = outputs[0]
    ramp = torch.arange(y.numel(), device=y.device, dtype=torch.float32)
    dy = torch.sin(ramp).view(y.shape[0], *y.shape[2:], y.shape[1]).permute(0, 3, 1, 2)
    return [*outputs, *torch.autograd.grad(y, inputs, (dy * scale).to(y.dtype))]


def _batch_norm(dtype, backend, device, dropout=0.2):
    x = random_map(_shape(device), dtype, device, mean=0.5)
    channels = x.shape[1]
    inputs = [x, random_vector(channels, device, mean=1, std=0.1), random_vector(channels, device, seed=2)]
    inputs = [t.requires_grad_() for t in inputs]
    return lambda seeds, scale=1.0: _with_gradients(
        batch_norm(*inputs, 1e-4, 0.1, dropout=dropout, seeds=seeds, slot=0, backend=backend), inputs, scale
    )


def _small_batch_norm(dtype, backend, device):
    inputs = [random_map((20, 48, 1, 1), dtype, device), random_vector(48, device), random_vector(48, device, seed=2)]
    inputs = [t.requires_grad_() for t in inputs]
    return lambda seeds, scale=1.0: _with_gradients(batch_norm(*inputs, 1e-4, 0.1, backend=backend), inputs, scale)


def _maxout(dtype, backend, device, order="after"):
    x = random_map(_shape(device), dtype, device)
    inputs = [x.requires_grad_(), random_vector(x.shape[1], device).requires_grad_()]
    return lambda seeds, scale=1.0: _with_gradients(
        [maxout(*inputs, dropout=0.5, order=order, seeds=seeds, slot=1, backend=backend)], inputs, scale
    )


def _bias_act(dtype, backend, device):
    x = random_map(_shape(device), dtype, device)
    inputs = [x.requires_grad_(), random_vector(x.shape[1], device).requires_grad_()]
    return lambda seeds, scale=1.0: _with_gradients(
        [bias_act(*inputs, 0.1, dropout=0.2, seeds=seeds, slot=2, backend=backend)], inputs, scale
    )


def _reparametrize(dtype, backend, device):
    n, units = (100, 64) if device == "cuda" else (5, 12)
    params, z = random_map((n, 2 * units, 1, 1), dtype, device), random_map((n, units, 1, 1), dtype, device, seed=2)
    params.requires_grad_()
    return lambda seeds, scale=1.0: _with_gradients(
        [reparametrize(params, z, dropout=0.2, seeds=seeds, slot=3, backend=backend)], [params], scale
    )


def _adversarial_loss(dtype, backend, device):
    logits = random_map((200, 1, 1, 1), dtype, device, std=3).flatten()
    return lambda seeds, scale=1.0: list(adversarial_loss(logits, backend=backend))


OPS = {
    "batch_norm": _batch_norm,
    "batch_norm of a 1x1 map": _small_batch_norm,
    "maxout": _maxout,
    "maxout, dropped before": lambda *args: _maxout(*args, order="before"),
    "bias_act": _bias_act,
    "reparametrize": _reparametrize,
    "adversarial_loss": _adversarial_loss,
}
"""name -> (dtype, backend, device) -> (seeds[, scale]) -> outputs, then gradients."""

DIFFERENTIABLE = [name for name in OPS if name != "adversarial_loss"]
RANDOM = [name for name in DIFFERENTIABLE if name != "batch_norm of a 1x1 map"]


def _same(got, want):
    return all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def check_against_the_reference(op, dtype, device):
    """The op's kernels, through the op: masks and codes equal by value; few of a batch norm's elements on the kink."""
    seeds = some_seeds(device)
    bound = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    pairs = zip(OPS[op](dtype, "triton", device)(seeds), OPS[op](dtype, "eager", device)(seeds), strict=True)
    for got, want in pairs:
        off = (got.double() - want.double()).abs() > bound * want.double().abs().max()
        assert off.double().mean() < (1e-3 if op.startswith("batch_norm") else 1e-9)


def check_repeats_to_the_bit(op, device):
    run, seeds = OPS[op](torch.bfloat16, "triton", device), some_seeds(device)
    first = run(seeds)
    assert all(_same(first, run(seeds)) for _ in range(_repetitions(device)))


def check_captured_replays(op, device):
    """Three replays, seeds drawn inside: each equals an eager run on the seeds it drew, and no two draw the same."""
    run = OPS[op](torch.bfloat16, "triton", device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(some_seeds(device))
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = torch.randint(2**63 - 1, (4,), device=device)
        outputs = run(drawn)
    results = []
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        results.append((drawn.clone(), [t.detach().clone() for t in outputs]))
    for seeds, replayed in results:
        assert _same(replayed, run(seeds))
    for (seeds, replayed), (next_seeds, next_replayed) in itertools.pairwise(results):
        assert not torch.equal(seeds, next_seeds)
        assert op not in RANDOM or not torch.equal(replayed[0], next_replayed[0])


def check_two_streams(op, device):
    """No scratch memory is shared between launches in flight."""
    run, seeds = OPS[op](torch.bfloat16, "triton", device), [some_seeds(device), some_seeds(device) + 1]
    want = [run(s) for s in seeds]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    got = [[], []]
    for _ in range(_repetitions(device)):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                got[i] = run(seeds[i])
    torch.cuda.synchronize()
    assert _same(got[0], want[0]) and _same(got[1], want[1])


def check_scaled_fp16_gradients(op, device):
    """A loss scale passes through the backward: gradients are linear in it, and finite."""
    run, seeds = OPS[op](FP16, "triton", device), some_seeds(device)
    outputs = 3 if op.startswith("batch_norm") else 1
    plain, scaled = run(seeds)[outputs:], run(seeds, 64.0)[outputs:]
    assert plain
    for one, many in zip(plain, scaled, strict=True):
        assert many.isfinite().all() and error(many.double() / 64, one.double()) < 2e-3


def check_grad_scaler(device):
    """torch.amp.GradScaler around an op: an infinite gradient skips the update, a finite one makes it."""
    x, seeds = random_map((8, 16, 6, 6), FP16, device), some_seeds(device)
    bias = torch.nn.Parameter(torch.zeros(16, device=device))
    optimizer = torch.optim.Adam([bias], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**30)
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


def check_whole_game(device, compiled):
    """The game by kernels equals the CPU's eager one on the same noise; its captured replays equal it to the bit."""
    want = play(*new_game("cpu"), "eager")
    game = new_game(device)
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
        assert _same(captured, got)
