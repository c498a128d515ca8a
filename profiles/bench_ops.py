"""Each op of csrc_triton at every shape of the paper's four networks, against what torch makes of the same formula.

    python -m profiles.bench_ops [--preset cifar10 ...] [--json PATH] [--chart PATH]

bf16. On a GPU: microseconds, forward and backward apart, inside CUDA graphs, for torch's eager mode, Inductor with each
set of options of `ali_fast.capture`, and the kernels; beside them the time of copying as many bytes as the kernels
move, on that card ("roofline"; what only reads may beat it). Called again and again, an op finds its tensors in L2 if
they fit, which a large step's does not: between its convolutions it is timed by `bench_step`, and by that full step the
default kernels are chosen. Without a GPU: the kernels' launches and bytes, the least time that their bytes take on
paper, and Inductor's own launches and bytes for the same, lowered for an H100: that needs the CPU build of torch, and
minutes a network. The counts hold for the torch version printed on top.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ali_fast.presets import Preset
from profiles import pretend
from profiles.arguments import Parser
from profiles.op_tables import count_table, step_totals, time_table

if TYPE_CHECKING:  # `pretend` comes before torch
    import torch

    from profiles.op_sites import Cost, Site

PASSES = ("forward", "backward")
# An H100 on paper: bytes a second of its memory and of its L2, and what of a tensor's traffic stays in L2.
MEMORY, L2, L2_BYTES = 3.0e12, 5.5e12, 50e6


def paper_us(moved: int) -> float:
    return moved / (L2 if moved <= L2_BYTES else MEMORY) * 1e6


def by_pass(values: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return dict(zip(PASSES, values, strict=False))


# ---------------------------------------------------------------- without a GPU


def counted(site: Site, dtype: torch.dtype, lowered: bool) -> dict[str, Any]:
    """The kernels' cost and paper floor; if asked, Inductor's launches and bytes by set of options."""
    from profiles.op_sites import our_cost

    ours = [cost._asdict() | {"floor_us": paper_us(cost.bytes)} for cost in our_cost(site, dtype)]
    inductor = inductor_cost(site, dtype) if lowered else {}
    return {"triton": by_pass(ours), "inductor": {k: by_pass([c._asdict() for c in v]) for k, v in inductor.items()}}


@functools.cache
def inductor_cost(site: Site, dtype: torch.dtype) -> dict[str, list[Cost]]:
    from profiles.lowered_ops import lower
    from profiles.lowering import GPU
    from profiles.op_sites import arguments, function
    from profiles.option_sets import OPTION_SETS

    make = functools.partial(arguments, site, dtype, GPU)
    return {name: lower(function(site, "inductor"), make, options) for name, options in OPTION_SETS.items()}


# ---------------------------------------------------------------- on a GPU


@functools.cache
def measured(site: Site, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Microseconds and kernels by variant, the bytes the kernels move, and the time of copying these.

    Beside them, why other variants are left out: one that does not compile is no reason to lose the site.
    """
    import torch

    from profiles import op_times, report
    from profiles.op_sites import arguments, our_cost

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensors = arguments(site, dtype, device)
        with torch.no_grad():
            for t in tensors[1:]:
                t.normal_()
            tensors[0].fill_(12345)
        torch._dynamo.reset()
        torch._functorch.config.donated_buffer = False  # a backward is run again and again
        made: dict[str, op_times.Passes] = {}
        left_out: dict[str, str] = {}
        for name, make in variants(site).items():
            try:
                made[name] = op_times.passes(make(), tensors)
            except Exception as error:
                left_out[name] = report.in_short(error)
    result: dict[str, Any] = {
        "copy": by_pass([{"bytes": c.bytes, "us": op_times.copy_us(c.bytes)} for c in our_cost(site, dtype)])
    }
    for which in PASSES:
        calls = {name: getattr(one, which) for name, one in made.items() if getattr(one, which)}
        if not calls:
            continue
        times = op_times.interleaved(list(calls.values()), stream)
        for name, time in zip(calls, times, strict=True):
            share = result["copy"][which]["us"] / time.us
            result.setdefault(name, {})[which] = time._asdict() | {"share": share}
    return {"measured": result, "left_out": left_out}


def variants(site: Site) -> dict[str, Callable[[], Callable[..., Any]]]:
    """Name -> what makes the op's call; "eager" is the formula that Inductor is given, as it is."""
    import torch

    from profiles.op_sites import function
    from profiles.option_sets import OPTION_SETS

    def compiled(options: Mapping[str, Any]) -> Callable[..., Any]:
        return torch.compile(function(site, "inductor"), fullgraph=True, dynamic=False, options=dict(options))

    makers: dict[str, Callable[[], Callable[..., Any]]] = {"eager": functools.partial(function, site, "inductor")}
    makers |= {f"inductor, {name}": functools.partial(compiled, options) for name, options in OPTION_SETS.items()}
    return makers | {"triton": functools.partial(function, site, "triton")}


# ---------------------------------------------------------------- the command


def pretend_gpu() -> bool:
    """Whether torch, imported after this, believes in a GPU that is not there; not where it has CUDA of its own."""
    try:
        pretend.h100()
    except RuntimeError:
        return False
    return True


def network_rows(
    preset: Preset, cost: Callable[[Site], Mapping[str, Any]], failed: list[str]
) -> Iterator[dict[str, Any]]:
    """A row for each site as soon as its cost is known; a site that fails is named in `failed` and costs no other."""
    from profiles.op_sites import sites

    for site, times in sites(preset).items():
        row: dict[str, Any] = {"preset": preset.name, "site": str(site), "op": site.op, "times": times}
        try:
            row |= cost(site)
        except Exception as error:
            failed.append(f"{preset.name}, {site}: {type(error).__name__}: {error}")
            continue
        yield row


def main() -> None:
    parser = Parser("bench_ops", __doc__)
    parser.add_networks()
    parser.add_outputs("write the numbers here too, as they come", "write a step's sums as bars, as PNG")
    args = parser.parse_args()
    networks = parser.networks(args)
    pretended = pretend_gpu()
    import torch

    from profiles import report

    on_gpu, dtype = torch.cuda.is_available() and not pretended, torch.bfloat16
    device = torch.device("cuda" if on_gpu else "cpu")
    head = report.header(device)
    report.print_header(head)
    if pretended:
        print(f"no GPU: counted, lowered for an {pretend.PROPERTIES.name}; times are on paper")
    elif not on_gpu:
        print("no GPU, and this torch cannot pretend one: Inductor's kernels are not counted; times are on paper")
    rows: list[dict[str, Any]] = []
    failed: list[str] = []

    def cost(site: Site) -> dict[str, Any]:
        return measured(site, dtype, device) if on_gpu else counted(site, dtype, pretended)

    def kept(preset: Preset) -> Iterator[dict[str, Any]]:
        for row in network_rows(preset, cost, failed):
            rows.append(row)
            if args.json:
                report.write_json(args.json, head, rows, dtype="bfloat16")
            yield row

    for preset in networks:
        print(f"{preset.name}, batch {preset.batch_size}", flush=True)
        for line in (time_table if on_gpu else count_table)(kept(preset)):
            print(line, flush=True)
        for row in (row for row in rows if row["preset"] == preset.name):
            for variant, why in row.get("left_out", {}).items():
                print(f"\nleft out: {row['site']}, {variant}: {why}", flush=True)
    if args.chart:
        totals, unit = step_totals(rows), "us" if on_gpu else "launches"
        title = f"all ops of a step, {unit}, on {head['device']}"
        report.bar_chart(args.chart, title, list(totals), list(totals.values()), None, unit)
    if failed:
        sys.exit("\n".join(["not done:", *failed]))


if __name__ == "__main__":
    main()
