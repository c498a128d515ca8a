import numpy as np
import pytest
import torch

from ali_fast.data.device import to_device
from ali_fast.data.loader import BetonLoader


def test_on_a_cpu_batches_own_their_memory(make):
    made = make(attributes=4)
    loader = BetonLoader(made.path, batch_size=4)
    batches = list(to_device(loader.epoch(0), torch.device("cpu")))
    assert len(batches) == 25
    for rows, batch in zip(loader.order.epoch(0).reshape(-1, 4), batches, strict=True):
        assert np.array_equal(batch.images.numpy(), made.images[rows])
        assert np.array_equal(batch.labels.numpy(), made.labels[rows])
        assert np.array_equal(batch.attributes.numpy(), made.attributes[rows])


@pytest.mark.gpu
def test_on_a_gpu_a_slow_device_sees_every_batch_unchanged(make):
    """The host runs ahead of the device: without the wait for used buffers, later images overwrite earlier ones."""
    made = make(count=400, shape=(32, 32, 3))
    loader = BetonLoader(made.path, batch_size=8)
    device = torch.device("cuda")
    weight = torch.randn(4096, 4096, device=device)
    sums = []
    for batch in to_device(loader.epoch(0), device):
        for _ in range(4):  # milliseconds of work before the images are read
            weight = torch.tanh(weight @ weight)
        sums.append(batch.images.long().sum())
    order = loader.order.epoch(0).reshape(-1, 8)
    assert [int(total) for total in sums] == [int(made.images[rows].astype(int).sum()) for rows in order]
