"""FID and KID by torch-fidelity (the extra `fid`), from Inception weights that one already has: no download."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ali_fast.errors import InputError

KID_SUBSET = 1000  # images, at most
RESIZE = "bilinear resize to 299x299 as in TensorFlow 1"


class _Images(Dataset):
    """uint8 [N, H, W, C] as the uint8 [3, H, W] that the library takes; gray is repeated."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def measure(
    images: npt.NDArray[np.uint8],
    real: npt.NDArray[np.uint8],
    weights: Path,
    cuda: bool,
    *,
    extractor: str = "inception-v3-compat",
) -> dict[str, float]:
    """FID and KID (mean and std over subsets) of uint8 [N, H, W, C] sets.

    `extractor`: a feature extractor registered with torch-fidelity. Raises InputError: the library or the weights
    cannot be used.
    """
    calculate_metrics = load_library(weights)
    try:
        values = calculate_metrics(
            input1=_Images(images),
            input2=_Images(real),
            fid=True,
            kid=True,
            kid_subset_size=min(KID_SUBSET, len(images), len(real)),
            cuda=cuda,
            cache=False,
            verbose=False,
            feature_extractor=extractor,
            feature_extractor_weights_path=str(weights),
        )
    except (RuntimeError, ValueError, KeyError, OSError, EOFError) as error:  # torch.load's and load_state_dict's
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--inception-weights {weights} cannot be used: {reason}") from error
    return {
        "fid": float(values["frechet_inception_distance"]),
        "kid": float(values["kernel_inception_distance_mean"]),
        "kid_std": float(values["kernel_inception_distance_std"]),
    }


def load_library(weights: Path) -> Callable[..., dict[str, float]]:
    """torch-fidelity's calculate_metrics. Raises InputError where it is not there, or `weights` is no file."""
    try:
        from torch_fidelity import calculate_metrics
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that is of another torch
        raise InputError(
            f"--inception-weights needs torch-fidelity, and a torchvision that fits this torch ({error}): install them "
            f"with pip install 'ali-fast[fid]' torch=={torch.__version__.partition('+')[0]}"
        ) from error
    if not weights.is_file():
        raise InputError(
            f"--inception-weights {weights}: no such file; torch-fidelity's weights-inception-2015-12-05-6726825d.pth "
            f"is expected"
        )
    return calculate_metrics


def describe(weights: Path) -> str:
    """Library, version, weights and resize, for the result."""
    return f"torch-fidelity {version('torch-fidelity')}, weights {weights.name}, {RESIZE}"
