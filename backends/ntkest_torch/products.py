"""Products of float32 matrices on a CPU by oneDNN, which uses the widest instructions that a processor has.

MKL, on which torch's own products rest, does so on Intel's processors only: on one of AMD's with AVX-512 these here are
1.3 to 2 times as fast. Operands are copied on the way, so that it pays for matrices that are neither small nor large;
and without AVX-512 not at all: there products of long rows took twice as long.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.overrides import TorchFunctionMode

from ntkest.linearization import sliced_products

from .flags import transforming

LEAST, MOST, DEEP = 2**23, 2**23, 64
"""Multiplications that a product has at least; numbers that an operand has at most; length of the sums at least."""

ROWS, SLICE = 64, 2**13
"""Of products of long rows: rows at least on either side; columns that are multiplied at once."""

LARGE = 2**18
"""Numbers in the weight of a dense layer that is worth the detour."""


@functools.cache
def wider() -> bool:
    """Whether oneDNN has wider instructions here than MKL uses: AVX-512, on a processor that is not Intel's."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        maker = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not on Linux
        maker = platform.processor()
    return "GenuineIntel" not in maker


def fast(*operands: torch.Tensor) -> bool:
    """Whether oneDNN can be asked for what is made of these, and is the faster."""
    return (
        wider()
        and torch._C._get_mkldnn_enabled()
        and torch.get_float32_matmul_precision() == "highest"  # with less, torch's own products are what was asked for
        and all(x.device.type == "cpu" and x.dtype == torch.float32 and x.layout == torch.strided for x in operands)
    )


def times_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product a bᵀ (m, n) of a (m, k) and b (n, k); without derivatives."""
    product: torch.Tensor = torch.nn.functional.linear(a.to_mkldnn(), b).to_dense()
    return product


def row_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """See `ntkest.linearization.row_products`: slices that caches hold, by oneDNN where there are rows enough."""
    (a, n), b = left.shape, right.shape[0]
    if min(a, b) < ROWS or n < DEEP or _differentiated(left, right) or not fast(left, right) or transforming():
        return sliced_products(xp, left, right)
    total = torch.zeros(a, b, dtype=torch.float64)
    for x, y in zip(left.split(SLICE, 1), right.split(SLICE, 1), strict=True):
        near = y.contiguous()
        total += times_transposed(near if left is right else x, near)
    return total


class FastProducts(TorchFunctionMode):
    """While it is entered, products of matrices go to oneDNN where that pays."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call the function, unless it is such a product."""
        if func in _PRODUCTS and not kwargs and len(args) == 2 and _pays(*args):
            return times_transposed(args[0], args[1].mT)
        return func(*args, **(kwargs or {}))


_PRODUCTS = {torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm}


def _pays(a: Any, b: Any) -> bool:
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.ndim == b.ndim == 2 and fast(a, b)):
        return False
    (m, k), n = a.shape, b.shape[1]
    sizes = k >= DEEP and m * k * n >= LEAST and max(m, n) * k <= MOST
    return sizes and b.shape[0] == k and b.mT.is_contiguous() and not _differentiated(a, b) and not transforming()


def _differentiated(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)


class Linear(torch.autograd.Function):
    """x Wᵀ for x (…, in) and W (out, in), with examples of x taken together under ``vmap``; not differentiable in W."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """See the class."""
        product = times_transposed(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), weight)
        return product.reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
        """Keep what `backward` needs."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """That of x."""
        return cotangent @ ctx.saved_tensors[0], None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, int]:  # type: ignore[override]
        """All examples at once, of one weight."""
        return Linear.apply(x.movedim(in_dims[0], 0), weight), 0


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``torch.nn.functional.linear``, without the derivative in a large weight."""
    if weight.numel() < LARGE or not x.numel() or not fast(x, weight) or not weight.is_contiguous():
        return torch.nn.functional.linear(x, weight, bias)
    outputs: torch.Tensor = Linear.apply(x, weight)
    return outputs if bias is None else outputs + bias
