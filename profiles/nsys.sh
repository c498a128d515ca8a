#!/bin/sh
# Record warm steps with NVIDIA Nsight Systems; arguments go to profiles.trace:
#     profiles/nsys.sh --dataset cifar10
# and open nsys_report.nsys-rep. A whole training run, with its ranges (tick, data wait, step, figures, checkpoint):
#     nsys profile --trace=cuda,nvtx ali-fast train --dataset cifar10 --amp --minutes 1
set -eu
cd "$(dirname "$0")/.."
if ! command -v nsys >/dev/null; then
    echo "nsys was not found: python -m profiles.trace $* shows the same steps by torch.profiler" >&2
    exit 2
fi
exec nsys profile --output nsys_report --force-overwrite true --trace=cuda,nvtx,cublas,cudnn \
    --capture-range=cudaProfilerApi --capture-range-end=stop --cuda-graph-trace=node \
    "${PYTHON:-python}" -m profiles.trace --nsys "$@"
