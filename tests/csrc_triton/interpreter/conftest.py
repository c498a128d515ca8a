"""Runs these tests in a process of its own, where Triton interprets kernels on CPU tensors.

Triton decides at its first import, so the tests are collected here, run by an inner pytest with TRITON_INTERPRET=1,
and each takes over its outcome from there. With TRITON_INTERPRET=1 set, this folder's tests run directly.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = os.environ.get("TRITON_INTERPRET") == "1"
HERE = Path(__file__).parent
REPORT = "CSRC_TRITON_INTERPRETER_REPORT"


@pytest.fixture
def ops_run_kernels(monkeypatch):
    """Ops given CPU tensors run their kernels, as they do on a GPU."""
    from csrc_triton import launch

    monkeypatch.setattr(launch, "runs_kernels", lambda x: True)


@pytest.fixture(autouse=True)
def _unwritten(unwritten_is_nan):
    pass


if INSIDE:
    _failures: dict[str, str] = {}
    _ran: list[str] = []

    def pytest_runtest_logreport(report):
        _ran.append(report.nodeid)
        if report.failed:
            _failures[report.nodeid] = report.longreprtext

    def pytest_sessionfinish(session):
        if REPORT in os.environ:
            Path(os.environ[REPORT]).write_text(json.dumps({"ran": _ran, "failures": _failures}))

else:

    def name(item):
        """Its node id, without the group that xdist appends."""
        return item.nodeid.split("@")[0]

    @pytest.fixture(scope="session")
    def interpreted(request, tmp_path_factory):
        """What became of every test of this folder in the interpreter's process."""
        chosen = [name(item) for item in request.session.items if HERE in item.path.parents]
        report = tmp_path_factory.mktemp("interpreter") / "report.json"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *chosen]
        environment = {**os.environ, "TRITON_INTERPRET": "1", REPORT: str(report)}
        inner = subprocess.run(
            command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True, check=False
        )
        assert report.exists(), f"the interpreter's pytest died:\n{inner.stdout}\n{inner.stderr}"
        return json.loads(report.read_text())

    def pytest_collection_modifyitems(items):
        for item in items:
            if HERE in item.path.parents:
                item.fixturenames.insert(0, "interpreted")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem):
        outcome = pyfuncitem.funcargs["interpreted"]
        assert name(pyfuncitem) in outcome["ran"], "the interpreter's pytest did not run this test"
        if name(pyfuncitem) in outcome["failures"]:
            pytest.fail(outcome["failures"][name(pyfuncitem)], pytrace=False)
        return True
