"""Compiling recorded launches for GPUs that are not there, and reading what ptxas made of them.

A case is a function of the data type that calls launchers on meta tensors within `recorded_launches`, so the kernels
are compiled with the very constants, types and 16-byte alignments that the launchers give them.
"""

import importlib
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from csrc_triton.launch import Launch, recorded_launches

ARCHITECTURES = (75, 80, 90, 100)
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
POINTERS |= {torch.int64: "*i64", torch.int8: "*i8", torch.uint8: "*u8"}


@dataclass(frozen=True)
class Case:
    """Launches to compile, and what they may use beyond the rule (no local memory, 128-bit loads of 16-bit data)."""

    run: Callable[[torch.dtype], object]
    wide_loads: bool = True
    stack_bytes: int = 0
    further: bool = False
    """A further size or setting of kernels that another case compiles for all types and architectures."""
    floats: str = "fp32"
    """The type of scalars that are Python floats: a launch makes them fp32, Inductor (torch 2.11, 2.13) fp64."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        return (torch.bfloat16,) if self.further else (torch.float32, torch.float16, torch.bfloat16)

    @property
    def architectures(self) -> tuple[int, ...]:
        return (75, 90) if self.further else ARCHITECTURES


def with_inductor_scalars(cases: dict[str, Case]) -> dict[str, Case]:
    return {
        f"{name}-fp64-scalars": replace(case, further=True, floats="fp64")
        for name, case in cases.items()
        if not case.further
    }


@dataclass(frozen=True)
class Source:
    """A launch as compiler input that a worker process can be sent."""

    module: str
    kernel: str
    signature: dict[str, str]
    constants: dict[str, object]
    aligned: tuple[int, ...]
    num_warps: int


@dataclass(frozen=True)
class Cubin:
    """What ptxas made of a kernel. `instructions`: its SASS opcodes, or empty where not disassembled. `on_doubles`: its
    operations in Triton's IR that have a float64 among operands or results."""

    kernel: str
    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    wide_loads: int
    on_doubles: tuple[str, ...]
    instructions: tuple[str, ...]


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    with recorded_launches() as record:
        case.run(dtype)
    return list(record)


def source(launch: Launch, floats: str) -> Source:
    """Types and specialisations as `triton.JITFunction` derives them at run time, but for the floats'."""
    signature, constants, aligned = {}, {}, []
    for i, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        special = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (special and type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            aligned.append(i)  # torch allocates on 512 bytes
        elif isinstance(value, float):
            signature[name] = floats
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if special and value % 16 == 0:
                aligned.append(i)
    fn = launch.kernel.fn
    return Source(fn.__module__, fn.__name__, signature, constants, tuple(aligned), launch.num_warps)


def compile_source(wanted: Source, architecture: int, disassemble: bool) -> Cubin:
    """Runs in a worker process; Triton's own cache makes a second run quick."""
    kernel = getattr(importlib.import_module(wanted.module), wanted.kernel)
    attributes = {(i,): [["tt.divisibility", 16]] for i in wanted.aligned}
    ast = ASTSource(kernel, signature=wanted.signature, constexprs=wanted.constants, attrs=attributes)
    options = {"num_warps": wanted.num_warps}
    compiled = triton.compile(ast, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", _dump("--dump-resource-usage", file.name))
        assert usage
        sass = _dump("--dump-sass", file.name) if disassemble else ""
    instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", sass, re.MULTILINE)
    wide_loads = len(re.findall(r"ld\.global\S*\.v4\.b32", compiled.asm["ptx"]))
    lines = [line.split(" loc(")[0] for line in compiled.asm["ttir"].splitlines()]
    operations = [re.search(r"\b[a-z_]+\.\w+", line) for line in lines if re.search(r"f64\b", line)]
    doubles = tuple(o.group() if o else "unknown" for o in operations)
    sizes = (*map(int, usage.groups()), compiled.metadata.shared)
    return Cubin(wanted.kernel, *sizes, wide_loads, doubles, tuple(instructions))


def _dump(what: str, path: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, what, path], capture_output=True, text=True, check=True).stdout


def check(cubin: Cubin, case: Case, dtype: torch.dtype) -> None:
    """The gates of every kernel. Without stack and local memory nothing can spill."""
    name = cubin.kernel
    assert cubin.registers <= 128, f"{name}: {cubin.registers} registers"
    assert cubin.shared_bytes <= 8192, f"{name}: {cubin.shared_bytes} bytes of shared memory"
    assert cubin.stack_bytes <= case.stack_bytes, f"{name}: {cubin.stack_bytes} bytes of stack"
    assert cubin.local_bytes == 0, f"{name}: {cubin.local_bytes} bytes of local memory"
    assert set(cubin.on_doubles) <= {"tt.func", "arith.truncf"}, f"{name}: float64 in {cubin.on_doubles}"
    wide = case.wide_loads and dtype.itemsize == 2
    assert cubin.wide_loads or not wide, f"{name}: no 128-bit loads"
    if cubin.instructions:
        assert "EXIT" in cubin.instructions, f"{name}: no code"
        assert case.stack_bytes or not _count(cubin, "LDL", "STL"), f"{name}: spills"
        assert _count(cubin, "LDG.E.128") or not wide, f"{name}: no 128-bit loads in the code"


def _count(cubin: Cubin, *prefixes: str) -> int:
    return sum(i.startswith(prefixes) for i in cubin.instructions)
