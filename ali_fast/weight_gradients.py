"""Weight gradients on a stream beside the step's: for GPUs, a branch of the CUDA graph that nothing waits for but Adam.

At batch 100 no product of the paper's nets fills a large GPU, and only Adam reads a weight's gradient. So a pass over
the traced graph turns every product that leads to nothing but an output into an operation that runs on a stream of its
own, until `join`: on an H200 a twelfth of cifar10's step. A convolution's backward is taken apart for it; its gradient
of the map stays where it is.

Memory: the operands are recorded on the side stream, so the allocator gives them to nobody before it is through; and
Inductor, which would reuse them under it, is told to reuse nothing. Nor may its kernels start early
(triton.enable_pdl): such a one waits for the operation before it in the program alone, and that may be on the other
stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

aten = torch.ops.aten

_beside: dict[torch.cuda.Stream, torch.cuda.Stream] = {}
_busy: set[torch.cuda.Stream] = set()  # of those beside which something runs


def forked(*operands: Tensor) -> torch.cuda.Stream:
    """The stream beside the current one, behind what that has been given; the operands stay until it is through."""
    current = torch.cuda.current_stream()
    if current not in _beside:
        _beside[current] = torch.cuda.Stream(current.device)
    side = _beside[current]
    _busy.add(current)
    side.wait_stream(current)
    for operand in operands:
        operand.record_stream(side)
    return side


def join() -> None:
    """The current stream waits for what runs beside it."""
    if not _busy:
        return
    current = torch.cuda.current_stream()
    if current in _busy:
        current.wait_stream(_beside[current])
        _busy.remove(current)


def let_wait(stream: torch.cuda.Stream | None) -> None:
    """`stream`, too, waits for what runs beside the current one: None only where nothing can."""
    if not _busy:
        return
    current = torch.cuda.current_stream()
    if current in _busy:
        assert stream is not None
        stream.wait_stream(_beside[current])


def all_joined() -> bool:
    return not _busy


def forget() -> None:
    """What a step that failed left running: the next one need not wait for it. Its operands are recorded still."""
    _busy.clear()


_AS_GIVEN = (torch.Tag.needs_fixed_stride_order,)  # else Inductor may give operands other strides than the fakes'


@torch.library.custom_op("ali_fast::product_aside", mutates_args=(), tags=_AS_GIVEN)
def product_aside(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices."""
    if not a.is_cuda:
        return a @ b
    with torch.cuda.stream(forked(a, b)):
        return a @ b


@product_aside.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@torch.library.custom_op("ali_fast::convolution_weight_aside", mutates_args=(), tags=_AS_GIVEN)
def convolution_weight_aside(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    """The weight's gradient of a convolution of h without padding, from dy."""
    if not dy.is_cuda:
        return _of_weight(dy, h, weight, stride, transposed)
    with torch.cuda.stream(forked(dy, h, weight)):
        return _of_weight(dy, h, weight, stride, transposed)


@convolution_weight_aside.register_fake
def _(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    return _of_weight(dy, h, weight, stride, transposed)


def _of_weight(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    geometry = (list(stride), [0, 0], [1, 1], transposed, [0, 0], 1)
    return aten.convolution_backward(dy, h, weight, None, *geometry, [False, True, False])[1]


def options(in_line: int = 0) -> dict[str, Any]:
    """Inductor's, for a program of which the first `in_line` outputs are read before `join`.

    The first, because Dynamo adds outputs at the end: whatever the program assigns to an attribute.
    """
    return {
        "post_grad_custom_post_pass": TakeAside(in_line),
        "allow_buffer_reuse": False,
        "inplace_buffers": False,
        "memory_planning": False,
        "reorder_for_peak_memory": False,  # an operation aside starts where it stands: early is what it is for
        "triton.enable_pdl": False,
    }


class TakeAside(CustomGraphPass):
    """The pass, on the graph that Inductor is about to lower.

    The forward of a program that has a backward stays as it is: what only its backward reads is an output, too.
    """

    def __init__(self, in_line: int):
        self.in_line = in_line

    def __call__(self, graph: fx.Graph) -> None:
        inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
        if any("primals" in name for name in inputs) and not any("tangents" in name for name in inputs):
            return
        *_, output = graph.nodes
        outputs: Any = output.args[0]
        kept = set(outputs[: self.in_line])
        for node in list(graph.nodes):
            if node.target is aten.mm.default and _is_leaf(node, kept):
                node.target = torch.ops.ali_fast.product_aside.default
            elif node.target is aten.convolution_backward.default:
                _take_apart(graph, node, kept)

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,)), self.in_line


_VIEWS = (
    aten.view.default,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.slice.Tensor,
    aten.as_strided.default,
)


def _is_leaf(node: fx.Node, kept: set[fx.Node]) -> bool:
    """Whether nothing is computed from it: it is an output that may be late, or is by views alone."""
    return node not in kept and all(
        user.op == "output" or (_is_view(user) and _is_leaf(user, kept)) for user in node.users
    )


def _is_view(node: fx.Node) -> bool:
    if node.target is not aten.reshape.default:
        return node.target in _VIEWS
    given: Any = node.args
    try:
        given[0].meta["val"].view(given[1])
    except RuntimeError:  # a copy
        return False
    return True


def _take_apart(graph: fx.Graph, node: fx.Node, kept: set[fx.Node]) -> None:
    arguments: Any = node.args
    dy, h, weight, _, stride, padding, dilation, transposed, output_padding, groups, wanted = arguments
    wants_h, wants_weight, wants_bias = wanted
    plain = not any([*padding, *output_padding]) and set(dilation) == {1} and groups == 1 and not wants_bias
    gradient = next((user for user in node.users if user.args[1] == 1), None)
    if not (plain and wants_weight and gradient is not None and _is_leaf(gradient, kept)):
        return
    with graph.inserting_before(node):
        aside = graph.call_function(
            torch.ops.ali_fast.convolution_weight_aside.default, (dy, h, weight, list(stride), transposed)
        )
    aside.meta["val"] = gradient.meta["val"]
    gradient.replace_all_uses_with(aside)
    graph.erase_node(gradient)
    if wants_h:
        node.args = (*arguments[:-1], [True, False, False])
        node.meta["val"] = (node.meta["val"][0], None, None)
    else:
        for part in list(node.users):
            graph.erase_node(part)
        graph.erase_node(node)
