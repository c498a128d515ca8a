"""One simultaneous update of all players of the model's objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ali_fast import weight_gradients
from ali_fast.branches import Branches
from ali_fast.capture import COMPUTED_AGAIN, GPU_OPTIONS, Graphed, compiled
from ali_fast.condition import to_y
from ali_fast.data.labelled import Labelled
from ali_fast.layers import move_running
from ali_fast.model import ALI
from ali_fast.objective import GAMES, METRICS, Outcome, Route, cheapest_route, check_route
from ali_fast.optim import Adam
from ali_fast.parallel import ALONE, World
from ali_fast.pixels import to_x


def turn_options(model: ALI, device: torch.device) -> Mapping[str, Any]:
    """Inductor's options for a turn of the model.

    Batch norm's gradient behind dropout is cheaper computed again in both of the kernels that read it: on an H100 2.5 %
    of svhn's step, 7.5 of imagenet64's. Where D has no batch norm that cost more than it saved, 11 % of cifar10's, when
    maxout's gradient still read its whole input. And the rounds of Philox in torch's own operations, computed again for
    whatever reads them, would double ten times.
    """
    if device.type != "cuda":
        return {}
    rounds = "eager" in dataclasses.astuple(model.kernels)
    return GPU_OPTIONS if rounds or model.architecture.pairs_independent else COMPUTED_AGAIN


class Step:
    """`step(*batch)` plays one game and moves its players; between `read_metrics` the host waits for nothing.

    dtype: what the networks compute in, by default the model's own (bf16, fp16: AMP, with float32 masters).
    route: how both gradients are taken; by default the cheapest exact way, ValueError for one that is not exact.
    options: Inductor's, by default `turn_options`. cuda_graph: capture the whole of it.
    samples: uint8 [count, H, W, C] on the device; a batch is then int64 [B], which of them to take. samples_y: of a
    conditional model, their y.
    labelled: of K+1 classes; each step also takes half as many of these, drawn anew with replacement.
    overlap_weight_gradients: compiled for a GPU, take them on a stream beside: see ali_fast.weight_gradients.
    overlap_encoder: run E beside G, of ALI and not in fp16: see ali_fast.branches.
    ema: each step E's and G's weights and running statistics, of K+1 classes D's too, move an average by
    average = ema * average + (1 - ema) * new.
    world: the processes that move together; every batch is this one's share.

    Attributes: model, which learns; shown, what is drawn, measured and exported: the model, or its average.
    """

    def __init__(
        self,
        model: ALI,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.5, 0.999),
        dtype: torch.dtype | None = None,
        route: Route | None = None,
        compile: bool = True,
        options: Mapping[str, Any] | None = None,
        cuda_graph: bool = False,
        samples: Tensor | None = None,
        samples_y: Tensor | None = None,
        labelled: Labelled | None = None,
        ema: float | None = None,
        overlap_weight_gradients: bool = False,
        overlap_encoder: bool = False,
        world: World = ALONE,
    ):
        master = next(model.parameters())
        self.model, self.device, self.dtype = model.train(), master.device, dtype or master.dtype
        self.working = model if self.dtype == master.dtype else model.working_copy(self.dtype)
        self.route: Route = route or cheapest_route(model.architecture, self.dtype)
        check_route(self.route, model.architecture, self.dtype)
        self.adam = Adam(
            model,
            self.working,
            learning_rate=learning_rate,
            betas=betas,
            loss_scale=self.dtype == torch.float16,
            compile=compile,
        )
        self.norms = model.trained_norms()
        self.steps = 0
        self.game, self.metrics = GAMES[model.objective], METRICS[model.objective]
        self.sums = torch.zeros(len(self.metrics), dtype=torch.float64, device=self.device)
        self.summed = 0
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.counter = torch.zeros((), dtype=torch.int64, device=self.device)
        self.samples, self.samples_y, self.labelled = samples, samples_y, labelled
        self.world = world
        self.ema, self.shown = ema, model if ema is None else model.twin()
        self.options = turn_options(model, self.device) if options is None else options
        self.move: Callable[..., None] = self._move
        self.turn: Callable[..., tuple[list[Tensor], list[Tensor]]] = self._turn
        if overlap_encoder:
            assert model.objective == "ali" and self.adam.scale is None and world.size == 1
            self.move = Branches(self, compile, overlap_weight_gradients)
        elif compile:
            aside = weight_gradients.options() if overlap_weight_gradients else {}
            self.turn = compiled(self._turn, self.device, {**self.options, **aside})
        self.run: Callable[..., None] = Graphed(self._run) if cuda_graph else self._run

    def __call__(self, *batch: Tensor) -> None:
        """batch, on the device: images uint8 [B, H, W, C], or int64 [B] into `samples`.

        Of a conditional model, images are followed by their y: int64 [B], classes, or uint8 [B, K], attributes.
        """
        self.run(*batch)
        self.steps += 1
        self.summed += 1

    def close(self) -> None:
        """Before the processes part; there are no steps afterwards."""
        if self.world.size > 1 and isinstance(self.run, Graphed):
            self.run.close()

    def _run(self, batch: Tensor, y: Tensor | None = None) -> None:
        """What happens on the device, and all that a CUDA graph holds."""
        weight_gradients.forget()
        rows = self.sample_labelled(len(batch))
        z, seeds = self.noise(len(batch) + (0 if rows is None else len(rows)))
        self.move(batch, z, seeds, rows, y)
        assert weight_gradients.all_joined()
        self.update_ema()

    def _move(self, batch: Tensor, z: Tensor, seeds: Tensor, rows: Tensor | None, y: Tensor | None) -> None:
        """A turn in one line, and all players after it."""
        gradients = self.turn(batch, z, seeds, rows, y)
        weight_gradients.join()
        self.adam.step(*gradients)

    @torch.no_grad()
    def update_ema(self) -> None:
        if self.ema is not None:
            averages, new = (list(net.averaged_state().values()) for net in (self.shown, self.model))
            torch._foreach_lerp_(averages, new, 1 - self.ema)

    def noise(self, batch: int) -> tuple[Tensor, Tensor]:
        """z ~ N(0, I) [batch, L, 1, 1] and the random sites' seeds, from the device's default generator."""
        z_dim = self.model.architecture.z_dim
        z = torch.randn(batch, z_dim, 1, 1, dtype=self.dtype, device=self.device)
        return z, torch.randint(2**63 - 1, (self.model.sites,), device=self.device)

    def sample_labelled(self, batch: int) -> Tensor | None:
        """Which labelled images go with a batch: int64 [batch / 2]."""
        if self.labelled is None:
            return None
        return torch.randint(len(self.labelled.labels), (max(1, batch // 2),), device=self.device)

    def _turn(
        self,
        batch: Tensor,
        z: Tensor,
        seeds: Tensor,
        rows: Tensor | None = None,
        y: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """All but the noise and the optimizers, one graph: the generator's and the discriminator's gradients."""
        if self.samples_y is not None:
            y = self.samples_y[batch]
        outcome = self.play(self.images(batch), z, seeds, rows, y)
        if self.world.size > 1:
            outcome = self.of_all(outcome)
        self.accumulate(outcome)
        return outcome.generator, outcome.discriminator

    def play(
        self,
        images: Tensor,
        z: Tensor,
        seeds: Tensor,
        rows: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Outcome:
        """The game on images uint8 [B, H, W, C]. rows: of `sample_labelled`; y as of `__call__`."""
        more: tuple[Tensor, ...] = ()
        if self.labelled is not None and rows is not None:
            images, more = torch.cat([images, self.labelled.images[rows]]), (self.labelled.labels[rows],)
        if self.model.y_dim is not None:
            assert y is not None, "a conditional step takes each image's y"
            more = (to_y(y, self.model.y_dim, self.dtype),)
        x = to_x(images, self.model.architecture.image_size, self.dtype)
        return self.game(self.working, x, z.to(self.dtype), seeds, self.route, self.adam.scale, *more)

    @torch.no_grad()
    def of_all(self, outcome: Outcome) -> Outcome:
        """The means of the processes' outcomes."""
        metrics, grads_g, grads_d, statistics = outcome
        means = iter(self.world.all_mean([metrics, *grads_g, *grads_d, *(new for pair in statistics for new in pair)]))
        return Outcome(
            next(means),
            [next(means) for _ in grads_g],
            [next(means) for _ in grads_d],
            [(next(means), next(means)) for _ in statistics],
        )

    def images(self, batch: Tensor) -> Tensor:
        """uint8 [B, H, W, C] of a batch, which is that or numbers in `samples`."""
        return batch if self.samples is None else self.samples[batch]

    @torch.no_grad()
    def accumulate(self, outcome: Outcome) -> None:
        """The running statistics and the metrics."""
        move_running(self.norms, outcome.statistics)
        self.sums.add_(outcome.metrics)
        bad = (self.first_bad < 0) & ~outcome.metrics.isfinite().all()
        self.first_bad.copy_(torch.where(bad, self.counter, self.first_bad))
        self.counter.add_(1)

    def read_metrics(self) -> dict[str, float]:
        """Means since the last reading, by the names of the objective's METRICS; waits for the device."""
        means = (self.sums / max(self.summed, 1)).tolist()
        self.sums.zero_()
        self.summed = 0
        values = dict(zip(self.metrics, means, strict=True))
        if self.adam.scale is not None:
            values["skipped_steps"] = float(self.adam.skipped)
        return values

    def first_bad_step(self) -> int | None:
        """The first step (from 0) whose losses were not finite; waits for the device."""
        step = int(self.first_bad)
        return step if step >= 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run continues from: tensors and numbers only. All processes ask for it at once."""
        generators = {"cpu": self.world.all_gather(torch.get_rng_state())}
        if self.device.type == "cuda":
            generators["cuda"] = self.world.all_gather(torch.cuda.get_rng_state(self.device))
        averages = {} if self.ema is None else {"ema": self.shown.averaged_state()}
        return averages | {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "generators": generators,
            "steps": self.steps,
            "sums": self.sums,
            "summed": self.summed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for master, copy in zip(self.model.parameters(), self.working.parameters(), strict=True):
            copy.data.copy_(master.data)
        if self.ema is not None:
            self.shown.load_state_dict(state["model"] | state["ema"])
        self.adam.load_state_dict(state["adam"])
        own = {kind: states.cpu().chunk(self.world.size) for kind, states in state["generators"].items()}
        own = {kind: states[self.world.rank].clone() for kind, states in own.items()}  # torch misreads a view
        torch.set_rng_state(own["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda"], self.device)
        self.steps, self.summed = state["steps"], state["summed"]
        self.sums.copy_(state["sums"])
        self.counter.fill_(self.steps)
        if isinstance(self.run, Graphed):  # it registered the generator in a state that is no longer its own
            self.run = Graphed(self._run)
