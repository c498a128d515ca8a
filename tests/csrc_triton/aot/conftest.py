"""Each test module here has CASES, name -> Case; every case x dtype x architecture becomes a test of its `test_cubin`.

Two worker processes compile ahead of the tests that wait for them. No interpreter, no GPU.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = ["*"]
else:
    import torch
    from ahead import compile_source, launches, source

    def pytest_generate_tests(metafunc):
        if "cubin_case" in metafunc.fixturenames:
            parameters = [
                pytest.param((case, dtype, arch), id=f"{name}-{str(dtype).removeprefix('torch.')}-sm_{arch}")
                for name, case in metafunc.module.CASES.items()
                for dtype in case.dtypes
                for arch in case.architectures
            ]
            metafunc.parametrize("cubin_case", parameters)

    @pytest.fixture(scope="session")
    def cubins(request):
        """(case, dtype, architecture) -> its launches' cubins, as soon as they are compiled."""
        wanted = {}
        for item in request.session.items:
            if HERE in item.path.parents and hasattr(item, "callspec"):
                case, dtype, arch = item.callspec.params["cubin_case"]
                # a second each, so of one architecture and data type; the others by resource usage and PTX
                disassemble = arch == 90 and dtype == torch.bfloat16 and not case.further
                sources = [source(launch, case.floats) for launch in launches(case, dtype)]
                wanted[id(case), dtype, arch] = [(one, arch, disassemble) for one in sources]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=context) as pool:
            futures, by_source = {}, {}
            for key, sources in wanted.items():
                for entry in sources:
                    if repr(entry) not in by_source:
                        by_source[repr(entry)] = pool.submit(compile_source, *entry)
                futures[key] = [by_source[repr(entry)] for entry in sources]
            yield lambda case, dtype, arch: [f.result() for f in futures[id(case), dtype, arch]]
            pool.shutdown(wait=False, cancel_futures=True)
