"""One code, decoded under one condition after another: figure 7, and its like for sets with classes.

A row or a column is named as on the command line (`Condition.parse`): a class, or attributes with commas between. A
cell is asked to have what its row and its column name, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ali_fast import figures
from ali_fast.condition import Condition
from ali_fast.errors import InputError
from ali_fast.inference import Inference, normal

# "Older" is without Young, "female" without Male. Figure 7's first column is the row's attributes alone.
FIGURE_7_ROWS = ("Male,Attractive,Young", "Male,Attractive", "Attractive,Young", "Attractive")
FIGURE_7_COLUMNS = (
    "",
    "Black_Hair",
    "Brown_Hair",
    "Blond_Hair",
    "Black_Hair,Wavy_Hair",
    "Blond_Hair,Bangs",
    "Blond_Hair,Receding_Hairline",
    "Blond_Hair,Bald",
    "Black_Hair,Smiling",
    "Black_Hair,Smiling,Mouth_Slightly_Open",
    "Black_Hair,Smiling,Mouth_Slightly_Open,Eyeglasses",
    "Black_Hair,Smiling,Mouth_Slightly_Open,Eyeglasses,Wearing_Hat",
)
MOST_COLUMNS = 20  # of a set with more names, unless they are asked for
CODES = {"classes": 10, "attributes": 1}


def default(condition: Condition) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows and columns: the paper's for CelebA's attributes; of other sets nothing beside each name by itself."""
    named = {name for text in (*FIGURE_7_ROWS, *FIGURE_7_COLUMNS) for name in text.split(",") if name}
    if condition.kind == "attributes" and named <= set(condition.names):
        return FIGURE_7_ROWS, FIGURE_7_COLUMNS
    return ("",), condition.names[:MOST_COLUMNS]


def sheet(
    inference: Inference,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    codes: int | None = None,
    seed: int = 0,
) -> figures.Images:
    """uint8 [height, width, C]: for each code the rows, one below the other; its columns are the conditions' columns.

    codes: how many, drawn by `seed`; by default one with attributes, ten with classes.
    Raises InputError: a run that is not conditional, a name that is not known, an image of two classes.
    """
    condition = inference.condition
    if condition is None:
        raise InputError(
            f"a run of objective {inference.model.objective} has no condition to vary: "
            f"train one by --objective conditional"
        )
    of_rows, of_columns = default(condition)
    rows, columns = rows or of_rows, columns or of_columns
    wanted = [condition.parse(row) + condition.parse(column) for row in rows for column in columns]
    y = torch.from_numpy(condition.rows(wanted))
    codes = codes or CODES[condition.kind]
    z = normal("z", (codes, inference.model.architecture.z_dim), seed)
    images = inference.decode(z.repeat_interleave(len(y), dim=0), y.repeat(codes, 1))
    return figures.grid(images.numpy(), len(columns))
