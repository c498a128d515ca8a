"""Which implementation each op takes: `--kernels`, or what was measured on this class of device."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ali_fast.errors import InputError

BACKENDS = ("eager", "inductor", "triton")


@dataclass(frozen=True)
class Kernels:
    """A backend for each op of csrc_triton."""

    batch_norm: str
    maxout: str
    bias_act: str
    reparametrize: str
    adversarial_loss: str


OPS = tuple(field.name for field in dataclasses.fields(Kernels))


@cache
def committed() -> dict[str, dict[str, str]]:
    """What was measured: {device class: {op: backend}}."""
    return json.loads(resources.files("ali_fast").joinpath("kernel_choice.json").read_text(encoding="utf-8"))["choice"]


def resolve(spec: str, device_class: str) -> Kernels:
    """Read `--kernels`.

    auto takes the committed choice for the device class ("cpu", or "sm_90" and the like), and Inductor's own
    code where nothing has been measured. Raises InputError for an unknown op or backend.
    """
    measured = dict.fromkeys(OPS, "inductor") | committed().get(device_class, {})
    if spec == "auto":
        return Kernels(**measured)
    if spec in BACKENDS:
        return Kernels(**dict.fromkeys(OPS, spec))
    chosen = measured
    for part in spec.split(","):
        op, _, backend = part.partition("=")
        if op not in OPS or backend not in BACKENDS:
            raise InputError(
                f"--kernels {spec}: {part!r} is not auto, {', '.join(BACKENDS)} or OP=BACKEND "
                f"with OP one of {', '.join(OPS)}"
            )
        chosen = chosen | {op: backend}
    return Kernels(**chosen)
