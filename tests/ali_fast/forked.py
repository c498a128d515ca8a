"""Runs in processes of their own, forked from a server that has a training's imports behind it: seconds a run."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ali_fast import metrics

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["ali_fast.train", "ali_fast.data.ffcv_stream", "torch.utils.tensorboard"])


def end_server() -> None:
    """It is killed: at its own exit it waits for ever for threads of TBB that only its parent had."""
    with context.Pool(1) as pool:
        server = pool.apply(os.getppid)
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)  # else the next start may still find it; multiprocessing reaps


def wait_for_ticks(run: Path, count: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and alive():
        with contextlib.suppress(FileNotFoundError):
            if len(metrics.read_metrics(run / "metrics.jsonl")) >= count:
                return
        time.sleep(0.005)
    raise AssertionError(f"no {count} ticks")


def assert_equal(a, b, where="state"):
    """Bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        a, b = (t.contiguous().view(-1).numpy().view(np.uint8) for t in (a, b))
        assert np.array_equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where
