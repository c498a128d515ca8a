"""pyproject.toml's loose bounds and constraints.txt's exact pins say the same."""

import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = [
    Requirement(text)
    for text in [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
        *PROJECT["build-system"]["requires"],
    ]
]
BUILT_HERE = {"ffcv", "ali-fast"}  # by data_prep/ffcv_wheel.sh, and this
BY_TORCH = "nvidia-"  # torch's CUDA build pins these itself
BROUGHT = {"pip", "setuptools", "wheel"}  # by the interpreter, perhaps in other versions


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    split = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(parts) == 2 for parts in split), "exact versions only"
    return {canonicalize_name(name): version for name, version in split}


def test_every_requirement_is_pinned_inside_its_bounds():
    pinned = pins()
    for requirement in REQUIREMENTS:
        if requirement.name not in BUILT_HERE:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_everything_installed_is_pinned():
    """What make setup installed, and nothing by chance: a new dependency needs its line."""
    site = [path for path in sys.path if Path(path).name == "site-packages"]  # not what setuptools brings inside
    installed = {canonicalize_name(found.metadata["Name"]) for found in distributions(path=site)}
    unpinned = {
        name
        for name in installed - set(pins()) - BUILT_HERE - BROUGHT
        if not name.startswith(BY_TORCH) and not name.startswith("cuda-")
    }
    assert not unpinned
