"""Weight gradients on a stream beside the step's: for GPUs, a branch of the CUDA graph that nothing waits for but Adam.

At batch 100 no product of the paper's nets fills a large GPU, and only Adam reads a weight's gradient. So a pass over
the traced graph turns every product that leads to nothing but an output into an operation that runs on a stream of its
own, until `sides.join()`: on an H200 a twelfth of cifar10's step. A convolution's backward is taken apart for it; its
gradient of the map stays where it is.

Memory: the operands are recorded on the side stream, so the allocator gives them to nobody before it is through; and
Inductor, which would reuse them under it, is told to reuse nothing (OPTIONS). Nor may its kernels start before the one
before them has ended (triton.enable_pdl): it takes the operation before a kernel for the one it starts behind, and the
one on another stream is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

aten = torch.ops.aten


class Sides:
    """The streams beside the current one that weight gradients take in turn."""

    def __init__(self, count: int):
        self.count = count
        self.of: dict[torch.cuda.Stream, list[torch.cuda.Stream]] = {}
        self.busy: dict[torch.cuda.Stream, list[torch.cuda.Stream]] = {}

    def forked(self, *operands: Tensor) -> torch.cuda.Stream:
        """One of them, behind what the current stream has been given; the operands stay until it is through."""
        current = torch.cuda.current_stream()
        sides = self.of.setdefault(current, [])
        busy = self.busy.setdefault(current, [])
        if len(sides) < self.count:
            sides.append(torch.cuda.Stream(current.device))
        else:
            sides.append(sides.pop(0))
        side = sides[-1]
        if side not in busy:
            busy.append(side)
        side.wait_stream(current)
        for operand in operands:
            operand.record_stream(side)
        return side

    def join(self) -> None:
        """The current stream waits for those that have been given work beside it."""
        if not self.busy:
            return
        current = torch.cuda.current_stream()
        for side in self.busy.pop(current, []):
            current.wait_stream(side)


sides = Sides(1)


@torch.library.custom_op("ali_fast::product_aside", mutates_args=())
def product_aside(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices."""
    if not a.is_cuda:
        return a @ b
    with torch.cuda.stream(sides.forked(a, b)):
        return a @ b


@product_aside.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@torch.library.custom_op("ali_fast::convolution_weight_aside", mutates_args=())
def convolution_weight_aside(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    """The weight's gradient of a convolution of h without padding, from dy."""
    if not dy.is_cuda:
        return _of_weight(dy, h, weight, stride, transposed)
    with torch.cuda.stream(sides.forked(dy, h, weight)):
        return _of_weight(dy, h, weight, stride, transposed)


@convolution_weight_aside.register_fake
def _(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    return _of_weight(dy, h, weight, stride, transposed)


def _of_weight(dy: Tensor, h: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool) -> Tensor:
    geometry = (list(stride), [0, 0], [1, 1], transposed, [0, 0], 1)
    return aten.convolution_backward(dy, h, weight, None, *geometry, [False, True, False])[1]


class TakeAside(CustomGraphPass):
    """The pass, on Inductor's final graph."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            if node.target is aten.mm.default and _is_leaf(node):
                node.target = torch.ops.ali_fast.product_aside.default
            elif node.target is aten.convolution_backward.default:
                _take_apart(graph, node)

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,))


OPTIONS: dict[str, Any] = {
    "post_grad_custom_post_pass": TakeAside(),
    "allow_buffer_reuse": False,
    "inplace_buffers": False,
}

_VIEWS = (
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.t.default,
    aten.as_strided.default,
)


def _is_leaf(node: fx.Node) -> bool:
    """Whether nothing is computed from it: it is an output, or is by views alone."""
    return all(user.op == "output" or (user.target in _VIEWS and _is_leaf(user)) for user in node.users)


def _take_apart(graph: fx.Graph, node: fx.Node) -> None:
    arguments: Any = node.args
    dy, h, weight, _, stride, padding, dilation, transposed, output_padding, groups, wanted = arguments
    to_h, to_weight, to_bias = wanted
    plain = not any([*padding, *output_padding]) and set(dilation) == {1} and groups == 1 and not to_bias
    gradient = next(_parts(node, 1), None)
    if not (plain and to_weight and gradient is not None and _is_leaf(gradient)):
        return
    with graph.inserting_after(node):
        aside = graph.call_function(
            torch.ops.ali_fast.convolution_weight_aside.default, (dy, h, weight, list(stride), transposed)
        )
    aside.meta["val"] = gradient.meta["val"]
    gradient.replace_all_uses_with(aside)
    graph.erase_node(gradient)
    if to_h:
        node.args = (*arguments[:-1], [True, False, False])
        node.meta["val"] = (node.meta["val"][0], None, None)
    else:
        for part in list(node.users):
            graph.erase_node(part)
        graph.erase_node(node)


def _parts(node: fx.Node, index: int) -> Iterator[fx.Node]:
    return (user for user in node.users if user.args[1] == index)
