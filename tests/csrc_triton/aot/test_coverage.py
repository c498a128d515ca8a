"""Every kernel of the package is compiled for every data type and architecture by some case."""

import importlib
import pkgutil

from ahead import launches
from triton.runtime.jit import JITFunction

import csrc_triton


def test_every_kernel_has_a_case(request):
    """By the naming rule: a kernel is a jitted function called *_kernel; the others are device functions."""
    modules = [importlib.import_module(f"csrc_triton.{m.name}") for m in pkgutil.iter_modules(csrc_triton.__path__)]
    kernels = {
        f"{m.__name__}.{k}"
        for m in modules
        for k, v in vars(m).items()
        if isinstance(v, JITFunction) and k.endswith("_kernel") and v.fn.__module__ == m.__name__
    }
    compiled = set()
    for path in request.path.parent.glob("test_*.py"):
        cases = getattr(_load(path), "CASES", {})
        for case in (case for case in cases.values() if not case.further):
            compiled |= {f"{x.kernel.fn.__module__}.{x.kernel.fn.__name__}" for x in launches(case, case.dtypes[0])}
    assert kernels and kernels == compiled


def _load(path):
    specification = importlib.util.spec_from_file_location(f"aot_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
