"""The functions of torch behind which a tap goes, and how each uses its weight."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional

from .layers import Convolution, Dense, Layer, Lookup, Transposed
from .patches import each, pad_widths
from .recurrent import RECURRENT

if TYPE_CHECKING:
    from .taps import Taps

Rule: TypeAlias = Callable[..., Any]
Tensor: TypeAlias = torch.Tensor


def _linear(taps: Taps, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """A dense layer, as `torch.nn.Linear` calls it."""
    return taps.linear(input, weight, bias)


def _flipped(outputs: Tensor) -> tuple[Layer, int]:
    return Dense(flipped=True), math.prod(outputs.shape[:-1])


def _product(taps: Taps, func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A product x @ W."""
    if len(args) == 2 and not kwargs and args[1].ndim == 2 and taps.among(args[1]):
        return taps.call(_flipped, lambda x, weight, _: func(x, weight), *args)
    return func(*args, **kwargs)


def _sum_and_product(taps: Taps, func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A product and a sum, b + x @ W."""
    if len(args) == 3 and not kwargs and args[0].shape == args[2].shape[1:]:
        bias, x, weight = args
        return taps.call(_flipped, lambda x, weight, bias: func(bias, x, weight), x, weight, bias)
    return func(*args, **kwargs)


def _convolution(axes: int) -> Rule:
    def rule(
        taps: Taps,
        func: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        return taps.call(
            lambda outputs: _on_patches(Convolution, axes, weight, outputs, stride, padding, dilation, groups),
            lambda x, weight, bias: func(x, weight, bias, stride, padding, dilation, groups),
            input,
            weight,
            bias,
        )

    return rule


def _transposed(axes: int) -> Rule:
    def rule(
        taps: Taps,
        func: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        return taps.call(
            lambda outputs: _on_patches(Transposed, axes, weight, input, stride, padding, dilation, groups),
            lambda x, weight, bias: func(x, weight, bias, stride, padding, output_padding, groups, dilation),
            input,
            weight,
            bias,
        )

    return rule


def _on_patches(
    kind: type[Convolution] | type[Transposed],
    axes: int,
    weight: Tensor,
    small: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> tuple[Layer, int]:
    """The layer, and S; `small` has an entry for each place of the kernel: outputs, or inputs of a transposed one."""
    kernel, places = tuple(weight.shape[2:]), tuple(small.shape[-axes:])
    gaps = each(dilation, axes)
    layer = kind(kernel, each(stride, axes), pad_widths(padding, kernel, gaps), gaps, groups, places)
    return layer, math.prod(small.shape[: -axes - 1]) * math.prod(places)


def _embedding(
    taps: Taps,
    func: Any,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """A table of embeddings. With `max_norm` it is written to, with frequencies gradients are not linear."""
    if max_norm is not None or scale_grad_by_freq:
        return func(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    return taps.call(
        lambda outputs: (Lookup(padding), math.prod(outputs.shape[:-1])),
        lambda x, weight, _: func(x, weight, padding_idx, sparse=sparse),
        input,
        weight,
    )


def _bag(
    taps: Taps,
    func: Any,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    *rest: Any,
    **others: Any,
) -> Tensor:
    """Sums and means of embeddings, of which torch has no batches: made of an embedding where that is the same."""
    special = (offsets, max_norm, scale_grad_by_freq, *rest, *others.values())
    if input.ndim != 2 or mode == "max" or not all(option is None or option is False for option in special):
        return func(input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, *rest, **others)
    found = _embedding(taps, functional.embedding, input, weight)
    return found.sum(1) if mode == "sum" else found.mean(1)


def _weight_norm(taps: Taps, func: Any, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """A weight of given norms, with operations of which torch has batches."""
    axes = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))


def _bilinear(taps: Taps, func: Any, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A bilinear form, with operations of which torch has batches."""
    found = torch.einsum("...i,oij,...j->...o", x, weight, y)
    return found if bias is None else found + bias


def _view(taps: Taps, func: Any, *args: Any, **kwargs: Any) -> Any:
    """A transpose or a part of a weight."""
    found = func(*args, **kwargs)
    if args and taps.among(args[0]):
        for part in found if isinstance(found, Sequence) else (found,):
            taps.view(args[0], part)
    return found


def _inside(taps: Taps, func: Any, *args: Any, **kwargs: Any) -> Any:
    """The layers inside of a function that torch itself writes in Python."""
    if "has_torch_function" not in func.__code__.co_names:  # it would come back here for ever
        return func(*args, **kwargs)
    with taps:
        return _body(func)(*args, **kwargs)


@cache
def _body(func: Any) -> Any:
    """A function of ``torch.nn.functional`` without its hook for modes, which would call the mode again."""
    world = {**func.__globals__, "has_torch_function": lambda _: False}
    body = types.FunctionType(func.__code__, world, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def _recurrent(taps: Taps, func: Any, *args: Any, **kwargs: Any) -> Any:
    """A recurrent layer, or one step of it, unless it is of a kind that is left to torch."""
    found = None if kwargs else RECURRENT[func](taps, *args)
    return func(*args, **kwargs) if found is None else found


RULES: dict[Any, Rule] = {
    functional.linear: _linear,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm), _product),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _sum_and_product),
    functional.conv1d: _convolution(1),
    functional.conv2d: _convolution(2),
    functional.conv3d: _convolution(3),
    functional.conv_transpose1d: _transposed(1),
    functional.conv_transpose2d: _transposed(2),
    functional.conv_transpose3d: _transposed(3),
    functional.embedding: _embedding,
    functional.embedding_bag: _bag,
    functional.bilinear: _bilinear,
    torch._weight_norm: _weight_norm,
    functional.multi_head_attention_forward: _inside,
    **dict.fromkeys(
        (
            Tensor.t,
            torch.t,
            Tensor.transpose,
            torch.transpose,
            Tensor.T.__get__,
            Tensor.mT.__get__,
            Tensor.chunk,
            torch.chunk,
            Tensor.split,
            torch.split,
            Tensor.__getitem__,
        ),
        _view,
    ),
    **dict.fromkeys(RECURRENT, _recurrent),
}
