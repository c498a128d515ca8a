"""Breaks every kernel in three ways and shows that the interpreter's suite fails each time.

    python tests/csrc_triton/mutations.py [MODULE ...]

By hand, minutes: each mutation is made in a copy of the package and its tests, of which the module's file runs until
the first failure. Prints the table of README.md; exit code 1 if a mutation survives.
"""

import importlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("csrc_triton", "tests/csrc_triton", "tests/conftest.py", "pyproject.toml")


class Mutation(NamedTuple):
    """`old`, once in the function's text, becomes `new`."""

    module: str
    function: str
    kind: str
    old: str
    new: str


ROWS = ("rows[:, None] < M", "rows[:, None] < M - 1")
LAST_TILE = ("range(start, end, BM)", "range(start, end - BM, BM)")
PART_ROWS = ("part_rows, end, BM)", "part_rows, end - BM, BM)")
PARTS = ("range(0, parts, BP)", "range(0, tl.minimum(parts, BP), BP)")
DY = ("dy_ptr + offsets, mask=inside, other=0.0", "dy_ptr + offsets, mask=inside, other=1.0")

MUTATIONS = [
    Mutation("adversarial_loss", "loss_kernel", "sign", "data, -seed_weight, seed", "data, seed_weight, -seed"),
    Mutation("adversarial_loss", "loss_kernel", "mask", "score_q += tl.where(data", "score_q += tl.where(inside"),
    Mutation("adversarial_loss", "loss_kernel", "bound", "range(0, 2 * N, B)", "range(0, N, B)"),
    Mutation("batch_norm", "_normalize", "sign", "h > 0", "h < 0"),
    Mutation("batch_norm", "_gradient", "sign", "h > 0", "h < 0"),
    Mutation("batch_norm", "small_forward_kernel", "sign", "x - mean[None, :]", "mean[None, :] - x"),
    Mutation("batch_norm", "small_forward_kernel", "mask", "tl.where(inside, x - mean[None, :], 0.0)", "x - mean"),
    Mutation("batch_norm", "small_forward_kernel", "bound", *ROWS),
    Mutation("batch_norm", "small_backward_kernel", "sign", "[None, :] - d * (", "[None, :] + d * ("),
    Mutation("batch_norm", "small_backward_kernel", "mask", *DY),
    Mutation("batch_norm", "small_backward_kernel", "bound", *ROWS),
    Mutation("batch_norm", "statistics_kernel", "sign", "origin + mean", "origin - mean"),
    Mutation("batch_norm", "statistics_kernel", "mask", "tl.where(inside, x - origin[None, :], 0.0)", "x - origin"),
    Mutation("batch_norm", "statistics_kernel", "bound", *LAST_TILE),
    Mutation("batch_norm", "_merge_statistics", "sign", "origin + tl.sum", "origin - tl.sum"),
    Mutation("batch_norm", "_merge_statistics", "mask", "within + d * d * count[:, None], 0.0", "within, 0.0"),
    Mutation("batch_norm", "_merge_statistics", "bound", "sums += tl.where(inside, (m", "sums = tl.where(inside, (m"),
    Mutation("batch_norm", "apply_kernel", "sign", "to(tl.float32) - mean[None, :]", "to(tl.float32) + mean[None, :]"),
    Mutation("batch_norm", "apply_kernel", "mask", "rows[:, None] < end", "rows[:, None] < end - 1"),
    Mutation("batch_norm", "apply_kernel", "bound", "range(0, end - start, BM)", "range(BM, end - start, BM)"),
    Mutation("batch_norm", "backward_sums_kernel", "sign", "tl.sum(dweight, 0)", "-tl.sum(dweight, 0)"),
    Mutation("batch_norm", "backward_sums_kernel", "mask", *DY),
    Mutation("batch_norm", "backward_sums_kernel", "bound", *LAST_TILE),
    Mutation("batch_norm", "_sum_parts", "mask", "part[:, None] < parts", "part[:, None] < parts - 1"),
    Mutation("batch_norm", "_sum_parts", "bound", *PARTS),
    Mutation("batch_norm", "backward_apply_kernel", "sign", "of_g[None, :] - d", "of_g[None, :] + d"),
    Mutation("batch_norm", "backward_apply_kernel", "mask", "rows[:, None] < end", "rows[:, None] < end - 1"),
    Mutation("batch_norm", "backward_apply_kernel", "bound", "range(0, end - start, BM)", "range(BM, end - start, BM)"),
    Mutation("bias_act", "forward_kernel", "sign", "h > 0", "h < 0"),
    Mutation("bias_act", "forward_kernel", "mask", "mask=cols < C, other=0.0", "mask=cols < C - 1, other=0.0"),
    Mutation("bias_act", "forward_kernel", "bound", *ROWS),
    Mutation("bias_act", "backward_kernel", "sign", "y > 0", "y < 0"),
    Mutation("bias_act", "backward_kernel", "mask", *DY),
    Mutation("bias_act", "backward_kernel", "bound", *PART_ROWS),
    Mutation("maxout", "forward_kernel", "sign", "second > first", "second < first"),
    Mutation("maxout", "forward_kernel", "mask", "cols2[None, :] < 2 * C", "cols2[None, :] < 2 * C - 1"),
    Mutation("maxout", "forward_kernel", "bound", "inside = (rows[:, None] < M)", "inside = (rows[:, None] < M - 1)"),
    Mutation("maxout", "backward_kernel", "sign", "code == 3, g", "code == 3, -g"),
    Mutation("maxout", "backward_kernel", "mask", "code == 2", "code >= 2"),
    Mutation("maxout", "backward_kernel", "bound", *PART_ROWS),
    Mutation("reparametrize", "forward_kernel", "sign", "eps, mu", "-eps, mu"),
    Mutation("reparametrize", "forward_kernel", "mask", "uniform_z >= threshold", "uniform_z_hat >= threshold"),
    Mutation("reparametrize", "forward_kernel", "bound", "element < count", "element < count - 1"),
    Mutation("reparametrize", "backward_kernel", "sign", "dlog_sigma = g", "dlog_sigma = -g"),
    Mutation("reparametrize", "backward_kernel", "mask", "uniform_z_hat >= threshold", "uniform_z_hat < threshold"),
    Mutation("reparametrize", "backward_kernel", "bound", "element < count", "element < count - 1"),
    Mutation("philox", "channel_uniforms", "sign", "tl.join(w0, w2)", "tl.join(w2, w0)"),
    Mutation("philox", "channel_uniforms", "mask", "words & 0xFFFF", "words & 0x7FFF"),
    Mutation("philox", "channel_uniforms", "bound", "tl.cdiv(C, 8)", "(C // 8)"),
    Mutation("philox", "drop_channels", "mask", "uniforms >= threshold", "uniforms < threshold"),
    Mutation("philox", "element_words", "sign", "uniform_float(w0)", "uniform_float(w1)"),
    Mutation("philox", "element_words", "mask", "(w2 & 0xFFFF)", "(w2 & 0x7FFF)"),
    Mutation("philox", "element_words", "bound", "(w3 & 0xFFFF)", "(w2 & 0xFFFF)"),
]  # fmt: skip


def mutate(text: str, mutation: Mutation) -> str:
    start = text.index(f"def {mutation.function}(")
    end = re.compile(r"\n(?:@|# -----|def )").search(text, start).start()
    body = text[start:end]
    assert body.count(mutation.old) == 1, f"{mutation} fits {body.count(mutation.old)} times"
    return text[:start] + body.replace(mutation.old, mutation.new) + text[end:]


def first_failure(tree: Path, module: str) -> str | None:
    """The first test of the module's file to fail, or None: all passed. In a fork: torch is imported once for all."""
    tests = f"tests/csrc_triton/interpreter/test_{module}.py"
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(tree)
            sys.path[0] = str(tree)
            code = pytest.main(["-x", "-rf", "--tb=no", "-p", "no:cacheprovider", tests])
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        text = output.read()
    if status == 0:
        return None
    named = re.search(r"^FAILED \S*?::(.*?)(?: - |$)", text, re.MULTILINE)
    assert named, f"no test failed, but:\n{text}"
    return named[1]


def prepare_process() -> None:
    """For the forks, before any test: not at import, since the suite imports the table of mutations."""
    os.environ["TRITON_INTERPRET"] = "1"
    sys.dont_write_bytecode = True
    for shared in ("hypothesis", "torch", "triton"):
        importlib.import_module(shared)


def main() -> int:
    prepare_process()
    survivors = 0
    print("| kernel | mutation | caught by |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        for mutation in MUTATIONS:
            if sys.argv[1:] and mutation.module not in sys.argv[1:]:
                continue
            path = tree / "csrc_triton" / f"{mutation.module}.py"
            whole = path.read_text()
            path.write_text(mutate(whole, mutation))
            caught = first_failure(tree, mutation.module)
            path.write_text(whole)
            survivors += caught is None
            print(
                f"| {mutation.module}.{mutation.function} | {mutation.kind}: `{mutation.old}` -> `{mutation.new}` "
                f"| {caught or 'SURVIVES'} |",
                flush=True,
            )
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
