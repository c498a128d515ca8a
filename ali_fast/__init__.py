"""A fast, trustworthy trainer of Adversarially Learned Inference (ALI, BiGAN).

`ali_fast.load("runs/cifar10")` gives a trained model with `sample`, `encode`, `decode`, `reconstruct` and
`interpolate`. Importing this package alone is light: torch comes with `load`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ali_fast.api import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from ali_fast.api import load

        return load
    raise AttributeError(f"module 'ali_fast' has no attribute {name!r}")
