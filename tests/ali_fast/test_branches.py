"""Who waits for whom on the streams of a step: no GPU is needed to see that."""

import contextlib

import pytest
import torch

from ali_fast import weight_gradients
from ali_fast.branches import Branches
from ali_fast.step import Step


class Stream:
    """As CUDA's, for what is done on it or waited for: names."""

    def __init__(self, device="cuda", priority=0):
        self.device = device
        self.done = set()

    def wait_stream(self, other):
        self.done |= other.done


class Streams:
    """Stands in for torch.cuda's."""

    def __init__(self, monkeypatch):
        self.current = self.main = Stream()
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(weight_gradients, "_beside", {})
        monkeypatch.setattr(weight_gradients, "_busy", set())

    @contextlib.contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def run(self, name, *needed):
        assert set(needed) <= self.current.done, f"{name} does not wait for {set(needed) - self.current.done}"
        self.current.done.add(name)

    def aside(self, name, *needed):
        with self.on(weight_gradients.forked()):
            self.run(name, *needed)


@pytest.fixture
def branches(make_small, monkeypatch):
    """Of a step whose programs only tell what they need and that they ran."""
    streams = Streams(monkeypatch)
    step = Step(make_small("maxout"), learning_rate=1e-3, compile=False)
    step.device = torch.device("cuda")
    branches = Branches(step, compile=False, overlap_weight_gradients=False)
    e, g = len(branches.theta_e), len(branches.theta_g)
    d = len(step.model.discriminator_parameters())
    tensor = torch.zeros(())

    def encode(batch, z, seeds):
        streams.run("E")
        return tensor, tensor

    def decode(z, seeds):
        streams.run("G")
        return (tensor,)

    def judge(x, x_tilde, z_joint, seeds, of_encoder, of_decoder):
        streams.run("D", "E", "G")
        streams.aside("D's weights", "D")
        return tensor, tensor, *[tensor] * d

    def backward(outputs, inputs, seeds):
        name = "E" if inputs is branches.theta_e else "G"
        streams.run(f"{name} back", name, "D")
        streams.aside(f"{name}'s weights", f"{name} back")
        return [tensor] * len(inputs)

    def factors():
        streams.run("factors")
        return tensor, tensor

    def update(first, gradients, size, root, unscale):
        name, after = {(0, e): ("E", "E back"), (e, g): ("G", "G back"), (e + g, d): ("D", "D")}[first, len(gradients)]
        streams.run(f"{name} moved", after, f"{name}'s weights", "factors")

    branches.encode, branches.decode, branches.judge = encode, decode, judge
    step.adam.factors, step.adam.update = factors, update
    monkeypatch.setattr(torch.autograd, "grad", backward)
    branches.streams = streams
    return branches


def test_each_player_moves_behind_its_gradients_and_all_before_the_end(branches):
    tensor = torch.zeros(())
    for _ in range(2):
        branches.streams.main.done.clear()
        branches(tensor, tensor, tensor, None, None)
        assert {"E moved", "G moved", "D moved"} <= branches.streams.main.done
        assert weight_gradients.all_joined()


def test_nobody_waits_for_what_only_adam_reads(branches):
    """Neither E's backward nor G's waits for D's weight gradients or its Adam, nor these for them."""
    seen = {}
    plain = branches.streams.run

    def run(name, *needed):
        seen[name] = set(branches.streams.current.done)
        plain(name, *needed)

    branches.streams.run = run
    tensor = torch.zeros(())
    branches(tensor, tensor, tensor, None, None)
    assert not {"E back", "G back"} & seen["D moved"]
    for name in ("E back", "G back", "E moved"):
        assert not {"D's weights", "D moved"} & seen[name], name
    assert not {"D moved", "E moved"} & seen["G moved"]
    assert "G back" not in seen["E moved"]
