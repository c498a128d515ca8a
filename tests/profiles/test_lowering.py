"""Launches counted in code as Inductor writes it."""

import pytest

from profiles.lowering import by_kind

CODE = """
async_compile.wait(globals())

def call(args):
    assert_size_stride(arg0_1, (100, 3, 32, 32), (3072, 1, 96, 3))
    buf0 = empty_strided_cuda((100, 64, 28, 28), (50176, 1, 1792, 64), torch.bfloat16)
    triton_poi_fused_div_0.run(arg0_1, buf0, 307200, stream=stream0)  # triton_red_fused.run(
    buf1 = extern_kernels.convolution(buf0, arg1_1, stride=(1, 1))
    forward_kernel_0.run(buf1, grid=(7, 1, 1), stream=stream0)
    extern_kernels.addmm(arg5, buf2, buf3, alpha=1, beta=1, out=buf4)
    triton_red_fused_native_batch_norm_1.run(buf4, 12, 7, stream=stream0)
    triton_per_fused_sum_2.run(buf4, 12, 7, stream=stream0)
    triton_unk_fused_sum_3.run(buf4, 12, 7, stream=stream0)
    triton_for_fused_4.run(buf4, stream=stream0)
    buf5 = torch.ops.aten.convolution_backward.default(buf4, buf0)
    workspace_0.zero_()
    buf6 = torch.ops.aten.index.Tensor(buf5, [buf4])
"""


def test_launches_by_kind():
    assert by_kind(CODE) == {
        "pointwise": 1,
        "convolution": 2,
        "custom Triton": 1,
        "GEMM": 1,
        "reduction": 2,
        "cooperative": 1,
        "foreach": 1,
        "memory set": 1,
        "ATen": 1,
    }


def test_a_step_that_fell_back_to_the_cpu_is_not_counted():
    with pytest.raises(AssertionError, match="CPU"):
        by_kind(CODE + "    cpp_fused_0(buf6)\n")
