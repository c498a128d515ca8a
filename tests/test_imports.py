"""The direction of imports: data goes one way, and so does knowledge of it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ali_fast", "csrc_triton", "data_prep", "profiles")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Full names of what a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(*targets: str) -> set[str]:
    """Modules that import one of `targets` or something inside it."""
    return {
        module
        for module in MODULES
        if any(name == t or name.startswith(t + ".") for name in imports(module) for t in targets)
    }


def test_kernels_know_torch_and_triton_only():
    for module in MODULES:
        if module.startswith("csrc_triton"):
            top = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
            assert top <= {"torch", "triton", "csrc_triton"}, module


SAY_SO = [
    m for m, path in MODULES.items() if "tandard library" in (ast.get_docstring(ast.parse(path.read_text())) or "")
]


@pytest.mark.parametrize("module", [*SAY_SO, "ali_fast.errors", "ali_fast.kernels"])
def test_light_modules_import_the_standard_library_and_each_other(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "numpy", "triton", "ffcv"} & set(loaded.stdout.split())


def test_data_prep_knows_the_schema_and_the_rule_for_images_and_little_else_of_ours():
    allowed = (
        "ali_fast.data.schema",
        "ali_fast.data.beton",
        "ali_fast.errors",
        "ali_fast.files",
        "ali_fast.images",
        "ali_fast.mixture.grid",
    )
    for module in MODULES:
        if module.startswith("data_prep"):
            ours = {name for name in imports(module) if name.startswith(("ali_fast", "csrc_triton", "profiles"))}
            outside = {name for name in ours if not name.startswith(allowed)}
            assert outside <= {"ali_fast", "ali_fast.data"}, f"{module}: {outside}"


def test_only_the_command_line_imports_data_prep():
    inside = {module for module in importers("data_prep") if module.startswith(("ali_fast", "csrc_triton"))}
    assert inside == {"ali_fast.commands", "ali_fast.prepared"}
    commands = {"ali_fast.commands", "ali_fast.evaluate.commands", "ali_fast.mixture.commands"}
    assert importers("ali_fast.prepared") == commands


def test_nothing_imports_profiles():
    assert {m for m in importers("profiles") if not m.startswith("profiles")} == set()


def test_what_a_run_writes_does_not_know_the_networks():
    for module in ("metrics", "checkpoint", "figures", "environment"):
        assert not {"ali_fast.model", "ali_fast.step", "ali_fast.train"} & imports(f"ali_fast.{module}")


def test_ffcv_is_imported_in_one_place_only():
    assert importers("ffcv") == {"ali_fast.data.ffcv_stream"}


def test_below_train_nothing_takes_the_whole_configuration():
    """But for `build` and `training_data`, train's own two halves: they make of it what the rest is given."""
    below = ("layers", "model", "objective", "optim", "step", "capture", "pixels", "kernels")
    assert not {f"ali_fast.{module}" for module in below} & importers("ali_fast.config")
