"""Settings of the whole process that make steps faster: cuDNN's timing of algorithms, threads, glibc's malloc."""

from __future__ import annotations

import ctypes
import os

import torch
from joblib import cpu_count

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def set_up(device: torch.device) -> None:
    """For training on `device`; of the whole process.

    CUDA: cuDNN times its algorithms once a shape; on an H100 cifar10's step is 7 % faster. Two processes may choose
    differently, and then differ in rounding. CPU: freed memory is kept, and threads are no more than the cores that may
    be used, unless OMP_NUM_THREADS says how many.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        return
    _keep_freed_memory()
    cores = cpu_count()  # by affinity and a container's quota, of which torch knows nothing
    if torch.get_num_threads() > cores and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores)


def _keep_freed_memory() -> None:
    """Where malloc is glibc's, let it return nothing to the kernel.

    It returns large blocks and the end of its heap, and each of their pages comes back by a fault: in cifar10's
    compiled step 30,000 times, a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
