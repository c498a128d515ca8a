"""What a compiled program keeps in memory."""

import re

import torch
from torch._inductor import config as inductor
from torch._inductor.utils import run_and_get_code

from csrc_triton import philox
from csrc_triton.stored import stored, teach_inductor


def test_outside_of_a_compiled_program_it_is_the_tensor():
    x = torch.randn(3)
    assert stored(x) is x


def test_a_mask_is_kept_as_bytes_and_its_random_numbers_not_at_all():
    """Two kernels that a product parts read it."""

    def twice(x, weight):
        keep = philox.torch_keep(x, philox.dropout_threshold(0.5))
        y = philox.drop(x, keep, 32768) @ weight
        return philox.drop(y @ weight.t(), keep, 32768)

    teach_inductor()
    x, weight = torch.rand(24, 40) + 1, torch.eye(40)
    with inductor.patch({"fx_graph_cache": False}):
        y, (code,) = run_and_get_code(torch.compile(twice, fullgraph=True), x, weight)
    torch.testing.assert_close(y, torch.where(y != 0, 4 * x, 0.0))
    assert 0 < int((y != 0).sum()) < y.numel()
    kept = re.findall(r"empty_strided_cpu\(\(24, 40\), \(40, 1\), torch\.(\w+)\)", code)
    assert kept.count("bool") == 1
    assert kept.count("float32") == 2, "what each product reads"
