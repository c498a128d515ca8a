"""Sets of Inductor's options for a GPU, to be compared: which is the best one is a measurement's to say."""

from __future__ import annotations

from typing import Any

from ali_fast.capture import COMPUTED_AGAIN, GPU_OPTIONS

# In one launch what else takes two or three.
_COOPERATIVE = {
    "triton.cooperative_reductions": True,
    "triton.force_cooperative_reductions": True,
    "split_reductions": False,
}
OPTION_SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "reads": GPU_OPTIONS,  # what training takes where D has no batch norm
    "again": COMPUTED_AGAIN,  # where it has
    "cooperative": COMPUTED_AGAIN | _COOPERATIVE,
}
