"""CUDA graphs: the same run, captured. Everything here needs a GPU."""

import copy

import pytest
import torch

from ali_fast.step import Step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

STEPS = 8  # three to warm up, one captured, four replayed


def images(model, count=8, seed=0):
    a = model.architecture
    shape = (count, a.image_size, a.image_size, a.image_channels)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).cuda()


KERNELS = ("triton", "inductor")  # `auto` is the second there, whose noise is drawn within the compiled programs


def make_step(make_small, kind, dtype=torch.bfloat16, kernels="triton", **options):
    model = make_small(kind, torch.float32, kernels).cuda()
    return Step(model, learning_rate=1e-3, dtype=dtype, **options)


def moved(step):
    return [*step.model.parameters(), *step.model.buffers(), *step.adam.m, *step.adam.v]


def tensors(step):
    return [*moved(step), step.sums, step.counter]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True))


def run(step, steps=STEPS, first=0):
    for i in range(first, first + steps):
        step(images(step.model, seed=i))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_captured_run_is_the_run_bit_for_bit(make_small, kind, dtype, kernels):
    steps = [make_step(make_small, kind, dtype, kernels, cuda_graph=graph) for graph in (False, True)]
    for step in steps:
        torch.manual_seed(1)
        run(step)
    assert equal(*steps)
    assert steps[0].read_metrics() == steps[1].read_metrics()


@pytest.mark.parametrize("beside", [False, True])
def test_twenty_captured_steps_in_float64_are_twenty_eager_ones(make_small, kind, beside):
    """What Inductor writes for a GPU, held to torch's own operations."""
    eager = Step(make_small(kind).cuda(), learning_rate=1e-3, compile=False)
    more = {"overlap_encoder": beside, "overlap_weight_gradients": beside}
    captured = Step(make_small(kind).cuda(), learning_rate=1e-3, cuda_graph=True, **more)
    for step in (eager, captured):
        torch.manual_seed(6)
        run(step, 20)
    pairs = zip(moved(captured), moved(eager), strict=True)
    assert max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs) < 1e-10
    assert captured.read_metrics() == pytest.approx(eager.read_metrics(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_e_beside_g_captured_is_uncaptured_bit_for_bit_and_near_one_program(make_small, kind, dtype):
    options = [{}, {"overlap_encoder": True}, {"overlap_encoder": True, "cuda_graph": True}]
    steps = [make_step(make_small, kind, dtype, **more) for more in options]
    for step in steps:
        torch.manual_seed(1)
        run(step)
    assert equal(steps[1], steps[2])
    assert steps[1].read_metrics() == steps[2].read_metrics()
    one, three = (torch.cat([p.detach().flatten() for p in step.model.parameters()]) for step in steps[:2])
    assert float((one - three).norm() / one.norm()) < (1e-4 if dtype == torch.float32 else 3e-2)


def test_resident_samples_by_number_under_a_graph(make_small, kind):
    streamed = make_step(make_small, kind, compile=False, cuda_graph=True)
    samples = images(streamed.model, 20)
    resident = make_step(make_small, kind, compile=False, cuda_graph=True, samples=samples)
    rows = torch.randint(20, (STEPS, 8), device="cuda")
    for step in (streamed, resident):
        torch.manual_seed(1)
        for row in rows:
            step(row if step is resident else samples[row])
    assert equal(streamed, resident)


@pytest.mark.parametrize("held", [False, True])
def test_y_goes_with_its_images_under_a_graph(make_small, kind, held):
    y = torch.randint(5, (20,), device="cuda")
    steps = []
    for graph in (False, True):
        model = make_small(kind, torch.float32, "triton", objective="conditional", y_dim=5).cuda()
        samples = images(model, 20)
        more = {"samples": samples, "samples_y": y} if held else {}
        steps.append(Step(model, learning_rate=1e-3, compile=False, cuda_graph=graph, **more))
        torch.manual_seed(1)
        for rows in torch.arange(STEPS * 8).view(STEPS, 8).cuda() % 20:
            steps[-1](*((rows,) if held else (samples[rows], y[rows])))
    assert equal(*steps)


def test_a_changed_learning_rate_reaches_the_replays(make_small):
    steps = [make_step(make_small, "maxout", compile=False, cuda_graph=graph) for graph in (False, True)]
    for step in steps:
        torch.manual_seed(1)
        run(step)
        step.adam.learning_rate.fill_(0.0)
        before = [p.clone() for p in step.model.parameters()]
        run(step, 2)
        assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
        step.adam.learning_rate.fill_(3e-3)
        run(step, 2)
    assert equal(*steps)


@pytest.mark.parametrize(
    "options",
    [{}, {"kernels": "inductor"}, {"kernels": "inductor", "overlap_encoder": True, "overlap_weight_gradients": True}],
    ids=["triton", "inductor", "as train"],
)
@pytest.mark.parametrize("resumed_after", [2, 6])
def test_a_run_resumed_under_graphs_goes_on_bit_for_bit(make_small, kind, resumed_after, options, tmp_path):
    """Saved while warming up or while replaying; loaded into a step that has already captured, too."""
    straight = make_step(make_small, kind, cuda_graph=True, **options)
    torch.manual_seed(1)
    run(straight, resumed_after)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    run(straight, STEPS, resumed_after)
    fresh = make_step(make_small, kind, cuda_graph=True, **options)
    used = make_step(make_small, kind, cuda_graph=True, **options)
    run(used)
    for step in (fresh, used):
        step.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        run(step, STEPS, resumed_after)
        assert equal(step, straight)


def test_saving_between_replays_changes_nothing(make_small):
    steps = [make_step(make_small, "norm", compile=False, cuda_graph=True) for _ in range(2)]
    for step in steps:
        torch.manual_seed(1)
        run(step)
        if step is steps[0]:
            copy.deepcopy(step.state_dict())
            step.read_metrics()
        run(step, 3, STEPS)
    ours, theirs = (list(step.model.parameters()) for step in steps)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_replays_never_wait_for_the_device(make_small, kind):
    step = make_step(make_small, kind, cuda_graph=True)
    batch = images(step.model)
    for _ in range(5):
        step(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(RuntimeError):  # the mode does see one
        torch.cuda.set_sync_debug_mode("error")
        try:
            step.read_metrics()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kernels", KERNELS)
def test_every_replay_draws_fresh_noise(make_small, kind, kernels):
    """With nothing learned and one batch, the losses differ by the noise alone; reseeded, they come again."""
    step = make_step(make_small, kind, kernels=kernels, cuda_graph=True)
    batch = images(step.model)
    for _ in range(5):
        step(batch)
    step.adam.learning_rate.fill_(0.0)

    def losses():
        torch.manual_seed(5)
        step.read_metrics()
        seen = []
        for _ in range(4):
            step(batch)
            seen.append(step.read_metrics()["loss_d"])
        return seen

    seen = losses()
    assert len(set(seen)) == 4
    assert losses() == seen


def test_a_batch_of_another_size_is_refused(make_small):
    step = make_step(make_small, "maxout", compile=False, cuda_graph=True)
    run(step, 4)
    with pytest.raises(AssertionError, match="one size"):
        step(images(step.model, 4))
