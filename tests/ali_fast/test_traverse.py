"""Which condition each picture of the grid was asked for: by a decoder that paints its condition, row by row."""

import numpy as np
import pytest
import torch

from ali_fast import traverse
from ali_fast.condition import Condition
from ali_fast.errors import InputError
from ali_fast.figures import GAP
from ali_fast.inference import Inference

SIZE = 8
SCALE = 6  # 8 pixels are drawn on 48


def painter(make_small, condition):
    """An Inference whose pictures have y, value by value, in their pixels, and 255 times a code's first value last."""
    model = make_small("maxout", torch.float32, objective="conditional", y_dim=len(condition.names))

    def generate(z, y):
        x = torch.zeros(len(z), 1, SIZE, SIZE)
        x.flatten(1)[:, : y.shape[1]] = y.flatten(1)
        x[:, 0, -1, -1] = torch.sigmoid(z[:, 0, 0, 0])
        return x

    model.generate = generate
    return Inference(model, (SIZE, SIZE, 1), condition)


def cells(sheet, columns, k):
    """(y as painted, the code's mark) of each picture, row by row."""
    step = SIZE * SCALE + GAP
    found = []
    for r in range((sheet.shape[0] - GAP) // step):
        row = []
        for c in range(columns):
            tile = sheet[GAP + r * step :, GAP + c * step :][: SIZE * SCALE : SCALE, : SIZE * SCALE : SCALE, 0]
            row.append((tuple(np.flatnonzero(tile.reshape(-1)[:k])), int(tile[-1, -1])))
        found.append(row)
    return found


def test_figure_7(make_small, celeba_names):
    names = celeba_names
    found = cells(traverse.sheet(painter(make_small, Condition("attributes", names))), 12, 40)
    read = [[{names[i] for i in marks} for marks, _ in row] for row in found]
    rows = [{"Male", "Attractive", "Young"}, {"Male", "Attractive"}, {"Attractive", "Young"}, {"Attractive"}]
    smiling = {"Black_Hair", "Smiling"}
    columns = [
        set(),
        {"Black_Hair"},
        {"Brown_Hair"},
        {"Blond_Hair"},
        {"Black_Hair", "Wavy_Hair"},
        {"Blond_Hair", "Bangs"},
        {"Blond_Hair", "Receding_Hairline"},
        {"Blond_Hair", "Bald"},
        smiling,
        smiling | {"Mouth_Slightly_Open"},
        smiling | {"Mouth_Slightly_Open", "Eyeglasses"},
        smiling | {"Mouth_Slightly_Open", "Eyeglasses", "Wearing_Hat"},
    ]
    assert read == [[row | column for column in columns] for row in rows]
    assert len({code for row in found for _, code in row}) == 1  # one z


def test_classes_by_codes(make_small):
    ali = painter(make_small, Condition("classes", ("a", "b", "c")))
    found = cells(traverse.sheet(ali, seed=5), 3, 3)
    assert [[marks for marks, _ in row] for row in found] == [[(0,), (1,), (2,)]] * 10
    codes = [{code for _, code in row} for row in found]
    assert all(len(code) == 1 for code in codes)
    assert len(set.union(*codes)) > 7
    again = cells(traverse.sheet(ali, columns=("c", "a"), seed=5), 2, 3)
    assert [[marks for marks, _ in row] for row in again] == [[(2,), (0,)]] * 10
    assert [{code for _, code in row} for row in again] == codes
    assert len(cells(traverse.sheet(ali, codes=2), 3, 3)) == 2
    assert not np.array_equal(traverse.sheet(ali, seed=5), traverse.sheet(ali, seed=6))


def test_named_rows_and_columns(make_small):
    ali = painter(make_small, Condition("attributes", ("p", "q", "r")))
    sheet = traverse.sheet(ali, ("p", ""), ("", "q,r"), codes=2)
    read = [[marks for marks, _ in row] for row in cells(sheet, 2, 3)]
    assert read == [[(0,), (0, 1, 2)], [(), (1, 2)]] * 2


def test_other_attributes_one_by_one(make_small):
    many = Condition("attributes", tuple(f"a{i}" for i in range(25)))
    found = cells(traverse.sheet(painter(make_small, many)), 20, 25)
    assert [[marks for marks, _ in row] for row in found] == [[(i,) for i in range(20)]]


def test_what_cannot_be_drawn(make_small):
    marks, classes = Condition("attributes", ("p", "q")), Condition("classes", ("p", "q"))
    with pytest.raises(InputError, match="no attribute 's'; there are: p, q"):
        traverse.sheet(painter(make_small, marks), ("p",), ("q,s",))
    with pytest.raises(InputError, match="p, q: an image is of one class"):
        traverse.sheet(painter(make_small, classes), ("p",), ("q",))
    plain = Inference(make_small("maxout", torch.float32), (SIZE, SIZE, 1))
    with pytest.raises(InputError, match="a run of objective ali has no condition to vary"):
        traverse.sheet(plain)
