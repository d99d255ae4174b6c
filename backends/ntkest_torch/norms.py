"""Normalisation layers whose forward derivatives can be differentiated again.

In torch 2.13 the forward derivatives of `layer_norm`, and of `batch_norm` and `instance_norm` with the statistics
of the input, take the saved mean and variance for constants, so that gradients of a JVP come out wrong, without an
error. Written with elementary operations they come out right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode

Maybe: TypeAlias = torch.Tensor | None


class ElementaryNorms(TorchFunctionMode):
    """While it is entered, those normalisations are made of elementary operations."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call the elementary form where there is one."""
        return _ELEMENTARY.get(func, func)(*args, **(kwargs or {}))


def _normalised(x: torch.Tensor, axes: Sequence[int], eps: float) -> torch.Tensor:
    variance, mean = torch.var_mean(x, dim=tuple(axes), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + eps)


def _affine(x: torch.Tensor, weight: Maybe, bias: Maybe, shape: Sequence[int]) -> torch.Tensor:
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _layer_norm(
    input: torch.Tensor,  # noqa: A002 (the name that torch gives it)
    normalized_shape: Sequence[int],
    weight: Maybe = None,
    bias: Maybe = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> torch.Tensor:
    axes = range(-len(normalized_shape), 0)
    return _affine(_normalised(input, axes, eps), weight, bias, tuple(normalized_shape))


def _channel_norm(native: Callable[..., torch.Tensor], alone: bool) -> Callable[..., torch.Tensor]:
    """`native` with the arguments of ``torch.nn.functional``; `alone`: each example is normalised by itself."""

    def norm(
        input: torch.Tensor,  # noqa: A002
        running_mean: Maybe = None,
        running_var: Maybe = None,
        weight: Maybe = None,
        bias: Maybe = None,
        by_input: bool = alone,
        momentum: float = 0.1,
        eps: float = 1e-5,
        **other: Any,
    ) -> torch.Tensor:
        by_input = other.pop("use_input_stats" if alone else "training", by_input)
        if not by_input:
            return native(input, running_mean, running_var, weight, bias, by_input, momentum, eps)
        axes = [axis for axis in range(input.ndim) if axis != 1 and not (alone and axis == 0)]
        channels = [1, -1] + [1] * (input.ndim - 2)
        return _affine(_normalised(input, axes, eps), weight, bias, channels)

    return norm


def _builtin(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same with the order of arguments of ``torch.batch_norm`` and ``torch.instance_norm``."""

    def ordered(
        input: torch.Tensor,  # noqa: A002
        weight: Maybe,
        bias: Maybe,
        running_mean: Maybe,
        running_var: Maybe,
        by_input: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,
    ) -> torch.Tensor:
        return norm(input, running_mean, running_var, weight, bias, by_input, momentum, eps)

    return ordered


_batch_norm = _channel_norm(torch.nn.functional.batch_norm, alone=False)
_instance_norm = _channel_norm(torch.nn.functional.instance_norm, alone=True)

_ELEMENTARY: dict[Any, Callable[..., torch.Tensor]] = {
    torch.nn.functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    torch.nn.functional.batch_norm: _batch_norm,
    torch.batch_norm: _builtin(_batch_norm),
    torch.nn.functional.instance_norm: _instance_norm,
    torch.instance_norm: _builtin(_instance_norm),
}
"""Running statistics of batch norm in train mode are not written: the model's own are out of reach anyway."""
