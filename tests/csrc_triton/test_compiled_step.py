"""The whole small game in one graph: fullgraph, its autograd.grad calls traced, equal to eager."""

import pytest
import torch
from small_game import new_game, play


@pytest.mark.parametrize(("backend", "compiler"), [("eager", "aot_eager"), ("triton", "inductor")])
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_whole(backend, compiler):
    game = new_game("cpu")
    want = play(*game, "eager")
    compiled = torch.compile(play, fullgraph=True, backend=compiler)
    for a, b in zip(compiled(*game, backend), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    other = compiled(*game[:3], game[3] + 1, backend)
    assert not torch.equal(want[0], other[0]), "new seeds, new noise"


def test_backends_agree_in_eager():
    game = new_game("cpu")
    for a, b in zip(play(*game, "triton"), play(*game, "eager"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
