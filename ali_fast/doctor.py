"""What this machine has, and what `train` would use on it and why."""

from __future__ import annotations

import dataclasses
from typing import Any

from ali_fast import decide, environment, kernels


def examine() -> dict[str, Any]:
    """{"environment": facts, "decisions": {what: {"value", "why"}}}, plain JSON values."""
    where, why_device = decide.device()
    name = decide.device_class(where)
    compiles, why_compile = decide.compiles()
    amp, why_amp = decide.dtype(True, where)
    overlaps, why_overlap = decide.overlaps("auto", where)
    on_cuda = where.type == "cuda"
    chosen = dataclasses.asdict(kernels.resolve("auto", name))
    measured = name in kernels.committed()
    return {
        "environment": environment.collect(),
        "decisions": {
            "device": {"value": str(where), "why": why_device},
            "torch.compile": {"value": "yes" if compiles else "no", "why": why_compile},
            "--amp": {"value": str(amp).removeprefix("torch."), "why": why_amp},
            "--data auto": {
                "value": "held on the device where they fit" if on_cuda else "streamed",
                "why": f"at most {decide.RESIDENT_SHARE:.0%} of its free memory" if on_cuda else decide.CPU_STREAMS,
            },
            "--cuda-graphs": {
                "value": "yes" if on_cuda else "no",
                "why": "one launch replays the whole step" if on_cuda else decide.NO_GPU,
            },
            "--overlap auto": {"value": "yes" if overlaps else "no", "why": why_overlap},
            "kernels": {
                "value": ", ".join(f"{op}={backend}" for op, backend in chosen.items()),
                "why": f"the fastest full step measured on {name}" if measured else f"nothing was measured on {name}",
            },
        },
    }


def to_text(report: dict[str, Any]) -> str:
    """`examine`'s result for a terminal."""
    rows: list[tuple[str, str]] = []
    for key, value in report["environment"].items():
        if key == "packages":
            rows += [(name, version or "not installed") for name, version in value.items()]
        elif key == "gpus":
            rows += [(f"gpu {i}", _gpu(gpu)) for i, gpu in enumerate(value)] or [("gpu", "none")]
        else:
            rows.append((key.replace("_", " "), "none" if value is None else str(value)))
    rows.append(("", ""))
    rows += [(name, f"{made['value']}  ({made['why']})") for name, made in report["decisions"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in rows)


def _gpu(gpu: dict[str, Any]) -> str:
    return (
        f"{gpu['name']}, capability {gpu['capability']}, {gpu['memory_bytes'] / 2**30:.1f} GiB, "
        f"{gpu['multiprocessors']} multiprocessors"
    )
