import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ali_fast.condition import Condition, to_y
from ali_fast.data.schema import Manifest
from ali_fast.errors import InputError

CLASSES = Condition("classes", ("ant", "bee", "cat, wild"))
MARKS = Condition("attributes", ("Male", "Young", "Bald", "Smiling"))
MANIFEST = Manifest("made", "train", 3, (8, 8, 1), (), (), 1, "0" * 64)


def test_of_a_data_set():
    path = Path("data/made/train.beton")
    of = lambda **known: Condition.of(dataclasses.replace(MANIFEST, **known), path)  # noqa: E731
    assert of(classes=CLASSES.names) == CLASSES
    assert of(attributes=MARKS.names) == MARKS
    assert of(classes=CLASSES.names, attributes=MARKS.names) == CLASSES  # as the classifier takes them
    with pytest.raises(InputError, match=r"made/train\.beton has neither class labels nor attributes"):
        of()


def test_through_json():
    for condition in (CLASSES, MARKS):
        assert Condition.from_json(condition.to_json()) == condition
    assert Condition.from_json(None) is None


def test_names_to_rows():
    assert MARKS.rows([("Male", "Smiling"), (), ("Young", "Young")]).tolist() == [[1, 0, 0, 1], [0] * 4, [0, 1, 0, 0]]
    assert CLASSES.rows([("bee",), ("cat, wild",)]).tolist() == [[0, 1, 0], [0, 0, 1]]


def test_names_as_the_command_line_has_them():
    assert MARKS.parse("Male,Smiling") == ("Male", "Smiling")
    assert MARKS.parse("") == CLASSES.parse("") == ()
    assert CLASSES.parse("cat, wild") == ("cat, wild",)


@pytest.mark.parametrize(
    ("condition", "names", "message"),
    [
        (MARKS, ("male",), "no attribute 'male'; there are: Male, Young, Bald, Smiling"),
        (CLASSES, ("dog",), "no class 'dog'; there are: ant, bee, cat, wild"),
        (CLASSES, ("ant", "bee"), "ant, bee: an image is of one class; there are: ant"),
        (CLASSES, (), "nothing: an image is of one class; there are: ant"),
    ],
)
def test_names_that_are_none(condition, names, message):
    with pytest.raises(InputError, match=message):
        condition.rows([names])


def test_in_turn():
    assert CLASSES.in_turn(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    known = torch.eye(4, dtype=torch.uint8)[:2]
    assert torch.equal(MARKS.in_turn(5, known), known[[0, 1, 0, 1, 0]])


def test_to_y():
    one_hot = to_y(torch.tensor([2, 0]), 3, torch.float64)
    assert one_hot.dtype == torch.float64
    assert one_hot[:, :, 0, 0].tolist() == [[0, 0, 1], [1, 0, 0]]
    marks = torch.from_numpy(np.array([[1, 0, 0, 1]], np.uint8))
    y = to_y(marks, 4)
    assert (y.dtype, y.shape) == (torch.float32, (1, 4, 1, 1))
    assert torch.equal(y.flatten(1), marks.float())
