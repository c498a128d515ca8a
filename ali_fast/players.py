"""Who plays which game: the networks that each objective has. Standard library only."""

from __future__ import annotations

from typing import Literal, NamedTuple

Objective = Literal["ali", "gan", "inverse", "post-hoc", "vae", "semi-supervised", "conditional"]


class Players(NamedTuple):
    """Every objective has a decoder."""

    encoder: bool = True
    frozen_decoder: bool = False
    """Another run's, which stays what it is, running statistics included."""
    judged: Literal["pairs", "images"] | None = "pairs"
    """What D sees: (x, z), or x alone, by D(x) and D(x, z)'s layers on its features; None where there is no D."""

    classes: bool = False
    """D has a logit for each class of the data; the made pairs' own is fixed at 0."""

    conditional: bool = False
    """Each network is told y, the class or the attributes of the image."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of those that a model has."""
        there = {
            "encoder": self.encoder,
            "decoder": True,
            "embedding": self.conditional,
            "discriminator": self.judged is not None,
        }
        return tuple(name for name, is_there in there.items() if is_there)


PLAYERS: dict[Objective, Players] = {
    "ali": Players(),
    "gan": Players(encoder=False, judged="images"),
    "inverse": Players(frozen_decoder=True, judged=None),
    "post-hoc": Players(frozen_decoder=True),
    "vae": Players(judged=None),
    "semi-supervised": Players(classes=True),
    "conditional": Players(conditional=True),
}
