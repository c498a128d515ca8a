import pytest
import torch

from profiles import bench_mixture


def test_a_gpu_that_is_not_there_is_a_wrong_argument(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        bench_mixture.main(["--device", "cuda"])
    assert end.value.code == 2
    assert "--device cuda" in capsys.readouterr().err
