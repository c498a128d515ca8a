import pytest

from ali_fast import kernels
from ali_fast.errors import InputError


def test_one_backend_for_all():
    assert set(vars(kernels.resolve("triton", "cpu")).values()) == {"triton"}


def test_auto_without_a_measurement_is_inductors_own():
    assert set(vars(kernels.resolve("auto", "sm_00")).values()) == {"inductor"}


def test_per_op(monkeypatch):
    monkeypatch.setattr(kernels, "committed", lambda: {"sm_90": {"maxout": "triton"}})
    assert kernels.resolve("auto", "sm_90").maxout == "triton"
    chosen = kernels.resolve("batch_norm=triton,bias_act=eager", "sm_90")
    assert (chosen.batch_norm, chosen.bias_act, chosen.maxout) == ("triton", "eager", "triton")
    assert chosen.reparametrize == "inductor"


@pytest.mark.parametrize("spec", ["", "cuda", "maxout", "maxout=cuda", "convolution=triton", "maxout=triton,"])
def test_mistakes_are_named(spec):
    with pytest.raises(InputError, match="--kernels"):
        kernels.resolve(spec, "cpu")


def test_the_committed_choice_is_of_ops_and_backends_that_exist():
    for device_class, choice in kernels.committed().items():
        assert device_class == "cpu" or device_class.startswith("sm_")
        assert set(choice) <= set(kernels.OPS) and set(choice.values()) <= set(kernels.BACKENDS)


def test_the_committed_choice_is_read(monkeypatch, tmp_path):
    """As the file has it: by device class, the ops that differ from Inductor's own."""
    (tmp_path / "kernel_choice.json").write_text('{"why": "", "choice": {"sm_90": {"batch_norm": "triton"}}}')
    monkeypatch.setattr(kernels.resources, "files", lambda package: tmp_path)
    kernels.committed.cache_clear()
    try:
        assert kernels.resolve("auto", "sm_90").batch_norm == "triton"
        assert kernels.resolve("auto", "sm_80").batch_norm == "inductor"
    finally:
        kernels.committed.cache_clear()
