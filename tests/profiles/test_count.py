"""What `count` is asked for and does not know. Its counts: test_whole_step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from profiles import count

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("flag", "accepted"), [("--preset", "cifar10, svhn"), ("--kernels", "triton")])
def test_what_is_unknown_is_named_beside_what_is_accepted(flag, accepted, capsys):
    with pytest.raises(SystemExit) as end:
        count.main([flag, "cifar"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "cifar" in said and accepted in said


@pytest.mark.skipif(torch.version.cuda is not None, reason="pretending a GPU needs the CPU build of torch")
def test_an_unknown_set_of_options():
    command = [sys.executable, "-m", "profiles.count", "--preset", "digits", "--options", "reads", "best"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "--options best: of default, reads, again, cooperative" in done.stderr


def test_where_no_gpu_can_be_pretended_it_says_so(monkeypatch, capsys):
    def refuse():
        raise RuntimeError("pretending a GPU needs the CPU build of torch")

    monkeypatch.setattr(count.pretend, "h100", refuse)
    with pytest.raises(SystemExit) as end:
        count.main([])
    assert end.value.code == 2
    assert "needs the CPU build of torch" in capsys.readouterr().err
