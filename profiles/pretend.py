"""An H100 that is not there: Inductor lowers for it on a machine without a GPU, and nothing can run on it.

`h100()` before the first `import torch`, in a process of its own. Then tensors of device "cuda" exist in a
FakeTensorMode, autograd runs on them, and torch.compile goes its real way to the code that it would load on an H100.
For the CPU build of torch; private names of torch 2.13 are used: other versions may want other answers.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = Path(__file__).with_suffix(".cpp")
BUILT = SOURCE.parents[1] / "build" / "pretend"

PROPERTIES = SimpleNamespace(
    name="NVIDIA H100 (pretended)",
    major=9,
    minor=0,
    total_memory=80 * 2**30,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    clock_rate=1980000,
    memory_clock_rate=2619000,
    memory_bus_width=5120,
    is_integrated=0,
    is_multi_gpu_board=0,
    gcnArchName="",
    uuid="",
)


class Driver:
    """What Triton asks of its driver before anything is compiled."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {
            "max_shared_mem": 232448,
            "max_num_regs": 65536,
            "multiprocessor_count": 132,
            "warpSize": 32,
            "sm_clock_rate": 1980000,
            "mem_clock_rate": 2619000,
            "mem_bus_width": 5120,
        }
    )

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cuda", 0)


def h100() -> None:
    """Make torch believe in an H100. Raises RuntimeError where it is too late, or where torch could see a real one."""
    if "torch" in sys.modules:
        raise RuntimeError("pretending a GPU comes before the first import of torch: use a process of its own")
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    libraries = Path(spec.origin).parent / "lib"
    if (libraries / "libtorch_cuda.so").exists():
        raise RuntimeError("pretending a GPU needs the CPU build of torch: this one has CUDA of its own")
    for name in ("libtorch_global_deps.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(libraries / name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(_build(libraries)))  # libtorch asks once, early, and remembers
    _patch_torch()


def _build(libraries: Path) -> Path:
    """The library for this torch, compiled once; nobody else can put one of their own where it is looked for."""
    version = importlib.metadata.version("torch")
    key = hashlib.sha256(SOURCE.read_bytes() + version.encode()).hexdigest()[:16]
    path = BUILT / f"{key}.so"
    if not path.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        include = libraries.parent / "include"
        compiler = [os.environ.get("CXX", "g++"), "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{include}"]
        subprocess.run([*compiler, str(SOURCE), "-o", str(part), f"-L{libraries}", "-lc10", "-ltorch_cpu"], check=True)
        part.rename(path)
    return path


def _patch_torch() -> None:
    import torch
    import triton

    triton.runtime.driver.set_active(Driver())
    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
        "get_device_properties": PROPERTIES,
        "get_device_capability": (PROPERTIES.major, PROPERTIES.minor),
        "get_device_name": PROPERTIES.name,
        "get_arch_list": ["sm_90"],
        "is_bf16_supported": True,
        "synchronize": None,
        "_lazy_init": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, _answering(answer))
    torch._C._cuda_getDevice = _answering(0)
    torch.cuda.default_generators = (torch.default_generator,)
    torch.version.cuda = "13.0"
    torch.backends.cudnn.is_available = _answering(True)

    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor.fx_passes import fuse_attention

    interface = {name: answers[name] for name in ("current_device", "device_count", "get_device_properties")}
    interface |= {"exchange_device": 0, "maybe_exchange_device": 0, "get_raw_stream": 0, "synchronize": None}
    interface |= {"is_bf16_supported": True, "set_device": None, "get_compute_capability": 90}
    interface |= {"is_triton_capable": True, "raise_if_triton_unavailable": None, "is_available": True}
    for name, answer in interface.items():
        setattr(CudaInterface, name, staticmethod(_answering(answer)))
    worker = {"get_device_properties": PROPERTIES, "current_device": 0, "set_device": None}
    for name, answer in worker.items():
        setattr(CudaInterface.Worker, name, staticmethod(_answering(answer)))
    fuse_attention._sfdp_init = _answering(None)  # traces attention on the device; there is none in our networks

    # Constants that Inductor folds by running them on the device: on the CPU, then.
    allocate = torch.library.Library("aten", "IMPL")
    allocate.impl("empty.memory_format", _empty, "CUDA")
    allocate.impl("empty_strided", _empty_strided, "CUDA")
    _KEPT.append(allocate)


_KEPT: list[Any] = []


def _answering(answer: Any) -> Any:
    return lambda *args, **kwargs: answer


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **where: Any) -> Any:
    import torch

    return torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **where: Any) -> Any:
    import torch

    return torch.empty_strided(size, stride, dtype=dtype)
