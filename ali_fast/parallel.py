"""Data parallel training: `torchrun --nproc-per-node N -m ali_fast train ...`, N processes with a device each.

Each has the whole model, its share of every batch, and noise of its own. Gradients, batch norm's statistics and losses
are averaged inside the step, by a collective that is traced and captured with it (DDP's hooks do not fire under
autograd.grad). So all move alike, and the first one writes for all. As with DDP, a batch norm sees its own process'
share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor, nn

from ali_fast import torchrun
from ali_fast.errors import InputError

PATIENCE = timedelta(hours=1)  # while the first prepares the data, or draws


@dataclass(frozen=True)
class World:
    """The processes of a training, and which of them this is. Of one, nothing here costs anything."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all_mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of each tensor over the processes; one collective a data type. Traced whole."""
        if self.size == 1:
            return list(tensors)
        means, group = list(tensors), dist.group.WORLD
        assert group is not None
        for dtype in {tensor.dtype: None for tensor in tensors}:
            of_type = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([_in_memory_order(tensors[i]).reshape(-1) for i in of_type])
            parts = functional.all_reduce(flat, "sum", group) / self.size
            for i, part in zip(of_type, parts.split([tensors[i].numel() for i in of_type]), strict=True):
                means[i] = _back(part.view(_in_memory_order(tensors[i]).shape), tensors[i])
        return means

    def all_max(self, *values: int) -> tuple[int, ...]:
        """Of each value over the processes. Their hosts wait for one another, their devices do not."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The processes' tensors, 1-D, as long in each, on the CPU: one after another."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    def broadcast(self, model: nn.Module) -> None:
        """The first one's weights to all: another model of CPU may round the same draws otherwise."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def local_batch(self, total: int) -> int:
        """This process' share of a batch. Raises InputError where `total` images cannot be shared out."""
        if total % self.size or (self.size > 1 and total < 2 * self.size):
            raise InputError(
                f"--batch-size {total}: it is shared by {self.size} processes, at least 2 images each; "
                f"give a multiple of {self.size}, at least {2 * self.size}"
            )
        return total // self.size


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Flattened so, it is copied as it lies, and Adam reads the mean in the order of its weights."""
    return tensor.permute(0, 2, 3, 1) if _channels_last(tensor) else tensor


def _back(mean: Tensor, like: Tensor) -> Tensor:
    return mean.permute(0, 3, 1, 2) if _channels_last(like) else mean


def _channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


ALONE = World()


@contextmanager
def world(device: str) -> Iterator[World]:
    """The processes that torchrun started, one device each, for as long as it is open; else ALONE.

    device: auto, cpu or cuda. Raises InputError where there are more processes than GPUs. An error in one leaves the
    others waiting for it: to end them is torchrun's part.
    """
    if not torchrun.started():
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise InputError(f"torchrun started more processes here than there are GPUs: --nproc-per-node {count}")
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield World(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()
