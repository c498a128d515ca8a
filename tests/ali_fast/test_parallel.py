"""Two processes on one machine, by gloo: their step against the mean of two outcomes, and whole runs as torchrun's."""

import copy
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import assert_equal, context, end_server, wait_for_ticks

from ali_fast import checkpoint, cli, metrics, parallel, torchrun
from ali_fast.capture import Graphed, compiled
from ali_fast.data.order import Order
from ali_fast.errors import InputError
from ali_fast.layers import BATCH_NORM_MOMENTUM
from ali_fast.objective import Outcome
from ali_fast.parallel import World
from ali_fast.step import Step

SIZE, STEPS, SHARE = 2, 3, 6


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    end_server()


def as_torchrun(rank: int, port: int, log: Path, function, *arguments) -> None:
    """What torchrun does for a process that it starts."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def start(log: Path, function, *arguments) -> list[multiprocessing.process.BaseProcess]:
    """Two processes; what they say on stderr is added to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=as_torchrun, args=(r, port, log, function, *arguments)) for r in range(SIZE)]
    for process in processes:
        process.start()
    return processes


def codes(processes) -> list[int | None]:
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def share_of(model, step: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    size, channels = model.architecture.image_size, model.architecture.image_channels
    return torch.randint(256, (SHARE, size, size, channels), dtype=torch.uint8, generator=generator)


def play(model, directory: Path, compile: bool) -> None:
    """In a process: some steps of its share, and what came of them."""
    with parallel.world("cpu") as world:
        torch.manual_seed(world.rank)
        model = copy.deepcopy(model)  # what came here lies in memory that the processes share
        step = Step(model, learning_rate=1e-2, compile=compile, world=world)
        for s in range(STEPS):
            step(share_of(model, s, world.rank))
        state = step.state_dict()
        torch.save(state, directory / f"{world.rank}.pt")


@pytest.mark.parametrize(
    ("kind", "objective", "compile"),
    [
        ("maxout", "ali", False),
        ("norm", "ali", False),
        ("maxout", "vae", False),
        pytest.param("norm", "ali", True, marks=pytest.mark.slow),
    ],
)
def test_processes_move_by_the_mean_of_their_outcomes(make_small, tmp_path, kind, objective, compile):
    model = make_small(kind, objective=objective)
    assert codes(start(tmp_path / "log", play, model, tmp_path, compile)) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(SIZE))

    step = Step(model, learning_rate=1e-2, compile=False)
    running = [average for norm in step.norms for average in (norm.running_mean, norm.running_var)]
    sums = torch.zeros_like(step.sums)
    noise = [torch.Generator().manual_seed(rank).get_state() for rank in range(SIZE)]
    for s in range(STEPS):
        outcomes: list[Outcome] = []
        for rank in range(SIZE):
            torch.set_rng_state(noise[rank])
            z, seeds = step.noise(SHARE)
            outcomes.append(step.play(share_of(model, s, rank), z, seeds))
            noise[rank] = torch.get_rng_state()
        a, b = outcomes
        step.adam.step(
            [(x + y) / 2 for x, y in zip(a.generator, b.generator, strict=True)],
            [(x + y) / 2 for x, y in zip(a.discriminator, b.discriminator, strict=True)],
        )
        of_batch = [[new for pair in o.statistics for new in pair] for o in outcomes]
        with torch.no_grad():
            for old, x, y in zip(running, *of_batch, strict=True):
                old += BATCH_NORM_MOMENTUM * ((x + y) / 2 - old)
        sums += sum(o.metrics for o in outcomes) / 2

    assert len(running) > 0
    for name, expected in model.state_dict().items():
        assert torch.equal(first["model"][name], second["model"][name]), name
        torch.testing.assert_close(first["model"][name], expected, rtol=1e-9, atol=1e-11, msg=name)
    torch.testing.assert_close(first["sums"], sums, rtol=1e-6, atol=0)  # of float32 losses
    assert torch.equal(first["sums"], second["sums"])
    assert torch.equal(first["generators"]["cpu"], torch.cat(noise))


def from_the_first(model, directory: Path) -> None:
    """In a process: a model of its own, and then the first one's."""
    with parallel.world("cpu") as world:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(world.rank)
        world.broadcast(model)
        torch.save(model.state_dict(), directory / f"{world.rank}.pt")


def test_all_have_the_first_ones_weights_and_statistics(make_small, tmp_path):
    model = make_small("norm")
    assert codes(start(tmp_path / "log", from_the_first, model, tmp_path)) == [0, 0], (tmp_path / "log").read_text()
    for rank in range(SIZE):
        assert_equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), model.state_dict())


def compiled_means(directory: Path) -> None:
    """In a process: a traced function's gradients, two data types of them, averaged inside it."""
    with parallel.world("cpu") as world:
        x = torch.arange(12.0).view(3, 4) + world.rank
        kernel = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
        weights = [torch.ones(4, 2), torch.ones(2, dtype=torch.float64), kernel]
        for weight in weights:
            weight.requires_grad_()

        def gradients(x: torch.Tensor) -> list[torch.Tensor]:
            loss = ((x @ weights[0]).double() * weights[1]).square().mean()
            return world.all_mean(torch.autograd.grad(loss + (kernel**2).sum() * x[0, 0], weights))

        means = compiled(gradients, x.device)(x)
        assert means[2].stride() == kernel.stride()
        torch.save(means, directory / f"{world.rank}.pt")


def test_means_are_traced_whole(tmp_path):
    assert codes(start(tmp_path / "log", compiled_means, tmp_path)) == [0, 0], (tmp_path / "log").read_text()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(SIZE))
    sums = [(torch.arange(12.0).view(3, 4) + rank).double() for rank in range(SIZE)]  # each weight is 1
    of_matrix = sum(x.T @ (2 * x.sum(dim=1, keepdim=True).expand(3, 2)) / 6 for x in sums) / 2
    of_vector = sum((2 * x.sum(dim=1).square()).sum() / 6 for x in sums) / 2
    of_kernel = torch.arange(24.0).view(2, 3, 2, 2) * 2 / 2  # times x[0, 0], which is the rank
    assert [gradient.dtype for gradient in first] == [torch.float32, torch.float64, torch.float32]
    torch.testing.assert_close(first, [of_matrix.float(), of_vector.expand(2), of_kernel])
    assert all(map(torch.equal, first, second))


def command(data: Path, run: Path, *more: object, batch_size: int = 16) -> list[str]:
    flags = ["--data-dir", data, "--run-dir", run, "--batch-size", batch_size, "--tick-images", 8 * batch_size, *more]
    return ["train", "--dataset", "digits", "--no-compile", "--device", "cpu", *map(str, flags)]


def newest(run: Path) -> dict:
    found = checkpoint.read_newest(run / "checkpoints", warn=pytest.fail)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """A run of two processes that nobody stopped."""
    run = tmp_path_factory.mktemp("straight")
    assert codes(start(run / "log", cli.main, command(data, run, "--steps", 48))) == [0, 0]
    return run


def test_one_writes_for_all(straight):
    lines = metrics.read_metrics(straight / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(8, 49, 8))
    assert lines[-1]["total_images"] == 48 * 16
    assert lines[-1]["epoch"] == pytest.approx(48 / (1297 // 16))
    state = newest(straight)
    assert state["conditions"]["processes"] == SIZE
    of_first, of_second = state["step"]["generators"]["cpu"].chunk(SIZE)
    assert not torch.equal(of_first, of_second)  # else both had the same noise


def saving_slowly(arguments: list[str], saved: Path) -> int:
    """In a process: a run whose first process takes its time to save what was trained; none may end before it has."""
    save = checkpoint.save  # nothing is put back: the process ends with this

    def slow(directory, step, *more, **options):
        time.sleep(0.2 if step else 0)
        path = save(directory, step, *more, **options)
        if step:
            saved.touch()
        return path

    checkpoint.save = slow
    code = cli.main(arguments)
    return code if saved.exists() else 99


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_stops_all_at_one_step_and_the_run_resumes_bit_for_bit(data, straight, tmp_path, asked):
    arguments, log = command(data, tmp_path, "--steps", 48), tmp_path / "log"
    processes = start(log, saving_slowly, [*arguments, "--checkpoint-ticks", "1000"], tmp_path / "saved")
    wait_for_ticks(tmp_path, 2, processes[0].is_alive)
    os.kill(processes[asked].pid, signal.SIGTERM)
    assert codes(processes) == [143, 143]
    assert 16 <= newest(tmp_path)["step"]["steps"] < 48
    assert codes(start(log, cli.main, arguments)) == [0, 0]
    assert_equal(newest(tmp_path)["step"], newest(straight)["step"])


def drawing_slowly(arguments: list[str], begun: Path) -> int:
    """In a process: a run whose first process takes its time to draw."""
    from ali_fast.record import Recorder

    def slow(self):
        begun.touch()
        time.sleep(1)

    Recorder._write_figures = slow  # nothing is put back: the process ends with this
    return cli.main(arguments)


def test_a_signal_while_the_first_draws_its_last_figures_stops_all(data, tmp_path):
    log, begun = tmp_path / "log", tmp_path / "begun"
    processes = start(log, drawing_slowly, command(data, tmp_path / "run", "--steps", 8), begun)
    deadline = time.monotonic() + 120
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(processes[0].pid, signal.SIGTERM)
    assert codes(processes) == [143, 143], log.read_text()
    assert newest(tmp_path / "run")["step"]["steps"] == 8


def test_bad_input(data, straight, tmp_path, capsys):
    log = tmp_path / "log"
    assert codes(start(log, cli.main, command(data, tmp_path / "odd", batch_size=15))) == [2, 2]
    assert log.read_text().count("--batch-size 15: it is shared by 2 processes") == SIZE
    assert cli.main(command(data, straight, "--steps", 64)) == 2
    assert "processes: 2 -> 1" in capsys.readouterr().err
    assert codes(start(log, cli.main, command(data, tmp_path / "run", "--learning-rate", 1e30, "--steps", 48))) == [
        1,
        1,
    ]
    assert log.read_text().count("became not finite") == SIZE


def apart(data: Path, run: Path) -> int:
    """In a process: a run directory that the others do not see."""
    return cli.main(command(data, run / os.environ["RANK"], "--steps", 8))


def test_processes_that_do_not_share_the_run_are_refused(data, straight, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "0").symlink_to(straight)
    assert codes(start(log, apart, data, tmp_path)) == [2, 2]
    assert log.read_text().count("share it among them") == SIZE


def test_torchrun_ends_all_when_one_is_killed(data, tmp_path):
    arguments = command(data, tmp_path, "--steps", 2000)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen([*torchrun, "-m", "ali_fast", *arguments], stdout=log, stderr=log) as launcher,
    ):
        wait_for_ticks(tmp_path, 6, lambda: launcher.poll() is None)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        assert len(children) == SIZE
        os.kill(int(children[1]), signal.SIGKILL)
        assert launcher.wait(120) != 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    saved = newest(tmp_path)["step"]["steps"]
    assert saved >= 40
    assert codes(start(tmp_path / "log", cli.main, [*arguments[:-1], str(saved + 8)])) == [0, 0]
    assert newest(tmp_path)["step"]["steps"] == saved + 8


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, False),
        ({"WORLD_SIZE": ""}, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, False),  # Slurm's and others', of processes that know nothing of each other
        ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "1"}, False),
        ({"LOCAL_RANK": "0", "RANK": "3", "WORLD_SIZE": "4", "MASTER_PORT": "1"}, True),
        ({"LOCAL_RANK": "0", "RANK": "3", "WORLD_SIZE": "4"}, "MASTER_PORT is no number"),
        ({"LOCAL_RANK": "0", "RANK": "3", "WORLD_SIZE": "", "MASTER_PORT": "1"}, "WORLD_SIZE is no number"),
    ],
)
def test_when_there_are_others(monkeypatch, told, expected):
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            torchrun.started()
    else:
        assert torchrun.started() == expected
        assert torchrun.first_process() == (not expected)


def test_a_run_from_before_there_were_others_was_of_one(data, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    path = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    state = checkpoint.read(path)
    del state["conditions"]["processes"]
    torch.save(state, path)
    log = tmp_path / "log"
    assert codes(start(log, cli.main, command(data, tmp_path / "run", "--steps", 56))) == [2, 2]
    assert log.read_text().count("processes: 1 -> 2") == SIZE


def test_a_captured_step_lets_its_graph_go_before_the_processes_part(make_small):
    class Captured(Graphed):
        def __init__(self):
            self.closed = False

        def close(self):
            self.closed = True

    for world in (World(), World(0, 2)):
        step = Step(make_small("maxout"), learning_rate=1e-3, compile=False, world=world)
        step.close()
        step.run = Captured()
        step.close()
        assert step.run.closed == (world.size > 1)


def closing(arguments: list[str]) -> int:
    """In a process: whether a training lets its step go, once, and while the others are still there."""
    closed: list[bool] = []  # nothing is put back: the process ends with this
    Step.close = lambda self: closed.append(torch.distributed.is_initialized())  # type: ignore[method-assign]
    return cli.main(arguments) or closed != [True]


def test_a_training_closes_its_step_before_the_processes_part(data, tmp_path):
    assert codes(start(tmp_path / "log", closing, command(data, tmp_path / "run", "--steps", 2))) == [0, 0]


def test_the_share_of_a_batch():
    assert [World().local_batch(1), World(0, 4).local_batch(100)] == [1, 25]
    for world, total in ((World(0, 3), 100), (World(1, 4), 4)):
        with pytest.raises(InputError, match=f"give a multiple of {world.size}, at least {2 * world.size}"):
            world.local_batch(total)
    assert len(Order(100, World(2, 4).local_batch(20), rank=2, world=4)) == len(Order(100, 20))
