"""torch-fidelity's side, where it is installed: our Frechet distance against its own, on a small extractor."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ali_fast.errors import InputError
from ali_fast.evaluate import inception
from ali_fast.evaluate.distances import frechet

here = importlib.util.find_spec("torch_fidelity") is not None
needs_it = pytest.mark.skipif(not here, reason="torch-fidelity is not installed (the extra fid)")


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


@pytest.mark.skipif(here, reason="torch-fidelity is installed")
def test_without_the_library_one_is_told_how_to_get_it():
    with pytest.raises(InputError, match=r"ali-fast\[fid\]"):
        inception.measure(images(20, 0), images(20, 1), Path("weights.pth"), False)


@needs_it
def test_weights_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        inception.measure(images(20, 0), images(20, 1), tmp_path / "absent.pth", False)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="cannot be used"):
        inception.measure(images(20, 0), images(20, 1), tmp_path / "other.pth", False)


@needs_it
def test_the_librarys_frechet_distance_is_ours(tmp_path):
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    projection = torch.randn(3 * 64, 16, generator=torch.Generator().manual_seed(0)) / 1000

    class Projected(FeatureExtractorBase):
        def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
            super().__init__(name, features_list)

        def forward(self, x):
            assert x.dtype == torch.uint8
            return tuple(x.flatten(1).float() @ projection.to(x.device) for _ in self.features_list)

        @staticmethod
        def get_provided_features_list():
            return ("2048",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "2048"

        get_default_feature_for_isc = get_default_feature_for_fid = get_default_feature_for_kid = staticmethod(
            lambda: "2048"
        )
        can_be_compiled = staticmethod(lambda: False)
        get_dummy_input_for_compile = staticmethod(lambda: None)

    torch_fidelity.register_feature_extractor("projected", Projected)
    (tmp_path / "weights.pth").touch()
    a, b = images(200, 0), images(200, 1) // 2
    found = inception.measure(a, b, tmp_path / "weights.pth", False, extractor="projected")
    ours = [x.repeat(3, -1).transpose(0, 3, 1, 2).reshape(200, -1) @ projection.numpy() for x in (a, b)]
    assert found["fid"] == pytest.approx(frechet(*ours), rel=1e-3)
    assert found["kid"] > 0
    assert "torch-fidelity" in inception.describe(Path("weights.pth"))
