import torch

from ali_fast.data.samples import Samples

IMAGES, LABELS = torch.zeros(3, 4, 4, 1, dtype=torch.uint8), torch.arange(3)
ATTRIBUTES = torch.ones(3, 5, dtype=torch.uint8)


def test_map_changes_what_is_there():
    changed = Samples(IMAGES, attributes=ATTRIBUTES).map(lambda tensor: tensor[1:])
    assert isinstance(changed, Samples)
    assert changed.images.shape == (2, 4, 4, 1)
    assert changed.labels is None
    assert changed.attributes.shape == (2, 5)


def test_y_is_the_labels_or_else_the_attributes():
    assert Samples(IMAGES).y is None
    assert Samples(IMAGES, LABELS, ATTRIBUTES).y is LABELS
    assert Samples(IMAGES, None, ATTRIBUTES).y is ATTRIBUTES
