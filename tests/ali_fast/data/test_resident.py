import numpy as np
import pytest
import torch

from ali_fast.data import resident
from ali_fast.data.loader import BetonLoader
from ali_fast.data.resident import ResidentSet, resident_bytes


@pytest.mark.parametrize("form", [{}, {"classes": 0}, {"attributes": 5}, {"shape": (2,)}])
def test_same_batches_as_the_stream(make, form, monkeypatch):
    monkeypatch.setattr(resident, "CHUNK", 40)
    loader = BetonLoader(make(**form).path, batch_size=10, seed=9)
    whole = ResidentSet(loader, torch.device("cpu"))
    assert len(whole) == len(loader) == 10
    for start in (0, 4):
        for resident_batch, streamed in zip(whole.epoch(2, start), loader.epoch(2, start), strict=True):
            for a, b in zip(resident_batch, streamed, strict=True):
                assert (a is None) == (b is None)
                assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


def test_batches_own_their_memory(make):
    whole = ResidentSet(BetonLoader(make().path, batch_size=10), torch.device("cpu"))
    batches = list(whole.epoch(0))
    kept = [batch.images.clone() for batch in batches]
    for _ in whole.epoch(1):
        pass
    assert all(torch.equal(batch.images, copy) for batch, copy in zip(batches, kept, strict=True))


def test_the_file_may_go(make):
    made = make()
    whole = ResidentSet(BetonLoader(made.path, batch_size=10), torch.device("cpu"))
    with made.path.open("r+b") as file:
        file.truncate(0)
    rows = whole.indices(0)[0].numpy()
    assert np.array_equal(next(iter(whole.epoch(0))).images.numpy(), made.images[rows])


@pytest.mark.parametrize("form", [{}, {"classes": 0}, {"attributes": 5}, {"shape": (2,)}])
def test_resident_bytes(make, form):
    loader = BetonLoader(make(**form).path, batch_size=10)
    whole = ResidentSet(loader, torch.device("cpu"))
    assert resident_bytes(loader.manifest) == sum(t.nbytes for t in whole.samples if t is not None)
