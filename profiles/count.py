"""What a step costs, counted on a machine without a GPU: GFLOP, and the GPU kernels of the step compiled for an H100.

    python -m profiles.count [--preset cifar10 ...] [--kernels triton ...] [--options reads ...]
                             [--json PATH] [--chart PATH]

Minutes a preset. The counts hold for this torch version: Inductor's fusions change with every one. They are the step's
as one program; on a GPU ALI's is three, E beside G, with some kernels more.
"""

from __future__ import annotations

from ali_fast.kernels import resolve
from profiles import pretend
from profiles.arguments import Parser

KERNELS = ("inductor", "triton", "auto")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("count", __doc__)
    parser.add_networks()
    parser.add_argument("--kernels", nargs="+", default=KERNELS, help="as ali-fast train takes it; default: all three")
    parser.add_argument("--options", nargs="+", help="sets of Inductor's options (profiles.option_sets); default: all")
    parser.add_outputs()
    args = parser.parse_args(arguments)
    networks = parser.networks(args)
    with parser.checked():
        for spec in args.kernels:
            resolve(spec, "sm_90")

    try:
        pretend.h100()
    except RuntimeError as error:  # a torch that has a GPU's libraries: not the one to count with
        parser.error(str(error))
    import torch  # not before
    from torch._inductor.exc import InductorError

    from profiles import report
    from profiles.flops import step_gflop, usual_gflop
    from profiles.option_sets import OPTION_SETS
    from profiles.whole_step import counts, others

    parser.check("--options", args.options or (), OPTION_SETS)
    head = report.header(torch.device("cpu")) | {"device": pretend.PROPERTIES.name}
    report.print_header(head)
    rows = []
    print("bf16; kernels of a step but its convolutions, GEMMs and Adams; then all by kind")
    for preset in networks:
        work, usual = step_gflop(preset), usual_gflop(preset, preset.batch_size)
        print(
            f"{preset.name}, batch {preset.batch_size}: {work:.1f} GFLOP a step; the usual step's {usual:.1f}",
            flush=True,
        )
        for spec in args.kernels:
            for options in args.options or OPTION_SETS:
                try:
                    kinds = counts(preset, spec, OPTION_SETS[options])
                except InductorError as error:  # in torch 2.13 cooperative reductions with a large product of few maps
                    print(f"  {spec:9} {options:12}  not lowered: {' '.join(str(error).split())[:80]}", flush=True)
                    continue
                row = {"preset": preset.name, "kernels": spec, "options": options, "gflop": work, "usual_gflop": usual}
                rows.append(row | {"others": others(kinds), "kinds": kinds})
                kinds_in_words = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
                print(f"  {spec:9} {options:12} {others(kinds):4}   {kinds_in_words}", flush=True)
                if args.json:
                    report.write_json(args.json, head, rows)
    if args.chart:
        report.bar_chart(
            args.chart,
            "GPU kernels of a compiled step, without convolutions, GEMMs and Adam",
            [f"{row['preset']}, --kernels {row['kernels']}, {row['options']} options" for row in rows],
            [row["others"] for row in rows],
            None,
            "kernels",
        )


if __name__ == "__main__":
    main()
