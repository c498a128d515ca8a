#!/bin/sh
# Record warm steps with NVIDIA Nsight Systems; arguments go to profiles.trace:
#     profiles/nsys.sh --dataset cifar10
# and open nsys_report.nsys-rep. Where nsys is missing, the same steps by torch's profiler: a table of the top kernels and
# of the gaps between them. A whole training run, with its ranges (tick, data wait, step, figures, checkpoint):
#     nsys profile --trace=cuda,nvtx ali-fast train --dataset cifar10 --amp --minutes 1
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
if ! command -v nsys >/dev/null; then
    echo "nsys was not found: by torch's profiler, then" >&2
    exec "$python" -m profiles.trace "$@"
fi
exec nsys profile --output nsys_report --force-overwrite true --trace=cuda,nvtx,cublas,cudnn \
    --capture-range=cudaProfilerApi --capture-range-end=stop --cuda-graph-trace=node \
    "$python" -m profiles.trace --nsys "$@"
