"""Kernels as Inductor copies them: their source, and by name the jitted functions and constants that it refers to."""

import ast
import builtins
import importlib
import pkgutil

import pytest
import triton.language as tl
from triton.runtime.jit import JITFunction

import csrc_triton

MODULES = [importlib.import_module(f"csrc_triton.{m.name}") for m in pkgutil.iter_modules(csrc_triton.__path__)]
JITTED = {
    f"{m.__name__}.{name}": value
    for m in MODULES
    for name, value in vars(m).items()
    if isinstance(value, JITFunction) and value.fn.__module__ == m.__name__
}


def _globals(jitted):
    """What a jitted function refers to by bare name or as the start of a dotted one, its locals aside."""
    names = {n.id for n in ast.walk(ast.parse(jitted.src)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    names -= {*jitted.fn.__code__.co_varnames, *vars(builtins)}
    return {name: jitted.fn.__globals__[name] for name in names}


def _reached(jitted, found):
    for name, value in _globals(jitted).items():
        assert found.setdefault(name, value) is value, f"two things are called {name}: Inductor copies the first"
        if isinstance(value, JITFunction):
            _reached(value, found)


@pytest.mark.parametrize("name", JITTED)
def test_inductor_can_copy_it(name):
    """A module's attribute, an alias or a plain number it would leave behind, and the copy would not compile."""
    for other, value in _globals(JITTED[name]).items():
        if isinstance(value, JITFunction):
            assert value.fn.__name__ == other, f"{name}: {other} is an alias of {value.fn.__name__}"
        else:
            assert value is tl or isinstance(value, tl.constexpr), f"{name} refers to {other}"


@pytest.mark.parametrize("name", [name for name in JITTED if name.endswith("_kernel")])
def test_names_are_unique_in_a_copy(name):
    _reached(JITTED[name], {JITTED[name].fn.__name__: JITTED[name]})
