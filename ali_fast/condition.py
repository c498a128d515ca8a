"""What a conditional run is told of each image, in words and as numbers.

y of N images is int64 [N], their classes, or [N, K] of any type: attributes, 0 or 1, or classes one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ali_fast.data.schema import Manifest
from ali_fast.errors import InputError


@dataclass(frozen=True)
class Condition:
    """K classes, of which an image is one, or K attributes, of which it has some."""

    kind: Literal["classes", "attributes"]
    names: tuple[str, ...]

    @staticmethod
    def of(manifest: Manifest, path: Path) -> Condition:
        """A data set's: its classes, else its attributes. Raises InputError where it has neither."""
        if manifest.classes:
            return Condition("classes", manifest.classes)
        if manifest.attributes:
            return Condition("attributes", manifest.attributes)
        raise InputError(
            f"--objective conditional: {path} has neither class labels nor attributes; train on a set that has them"
        )

    @staticmethod
    def from_json(values: dict[str, Any] | None) -> Condition | None:
        return None if values is None else Condition(values["kind"], tuple(values["names"]))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names)}

    def rows(self, wanted: Sequence[Sequence[str]]) -> npt.NDArray[np.uint8]:
        """y [N, K], 0 or 1, of N sets of names: of classes one each. Raises InputError for a name that is not known."""
        y = np.zeros((len(wanted), len(self.names)), np.uint8)
        for row, names in zip(y, wanted, strict=True):
            for name in names:
                if name not in self.names:
                    raise InputError(f"no {self.one} {name!r}; there are: {', '.join(self.names)}")
                row[self.names.index(name)] = 1
            if self.kind == "classes" and row.sum() != 1:
                given = ", ".join(names) or "nothing"
                raise InputError(f"{given}: an image is of one class; there are: {', '.join(self.names)}")
        return y

    def parse(self, text: str) -> tuple[str, ...]:
        """Names as the command line has them: a class, or attributes with commas between. Empty: none."""
        names = [text] if self.kind == "classes" else text.split(",")
        return tuple(name for name in names if name)

    @property
    def one(self) -> str:
        return "class" if self.kind == "classes" else "attribute"

    def in_turn(self, count: int, known: Tensor | None = None) -> Tensor:
        """y of `count` images to be drawn: the classes in turn, or the attributes of `known` [N, K] in turn."""
        if self.kind == "classes":
            return torch.arange(count) % len(self.names)
        assert known is not None, "attributes are those of some images"
        return known[torch.arange(count) % len(known)]


def to_y(values: Tensor, y_dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels int64 [N], one-hot, or [N, K] as it is -> y [N, K, 1, 1]."""
    y = F.one_hot(values, y_dim) if values.dim() == 1 else values
    return y.to(dtype)[:, :, None, None]
