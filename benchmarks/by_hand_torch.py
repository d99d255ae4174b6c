"""What one would write in torch instead of ntkest: each way to make 32 passes and take the trace from them.

A contestant takes a seed and returns (trace, standard error). Signs are torch's own random bits, spread out with a
shift: 4 to 10 times faster than `bernoulli_`, `randint` or the sign of `rand`. What depends on the point only, the
graph of the primal or the linearized function, is made beforehand.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch.autograd import forward_ad

from .cases import PASSES
from .models_torch import Model

Contestant = Callable[[int], tuple[float, float]]
Tensors = tuple[torch.Tensor, ...]

CHUNKS = (2, 4, 8, 16, 32)
_SHIFTS = torch.arange(8, dtype=torch.uint8)


def contestants(model: Model, mode: str) -> dict[str, Contestant]:
    """All of one mode, by name."""
    return reverse(model) if mode == "reverse" else forward(model)


def reverse(model: Model) -> dict[str, Contestant]:
    """tr K = E‖Jᵀω‖²."""
    params = {k: p.detach().requires_grad_() for k, p in model.module.named_parameters()}
    names, blocks = list(params), tuple(params.values())
    outputs = model(params)
    shape = tuple(outputs.shape)
    _, pull = torch.func.vjp(lambda *b: model(dict(zip(names, b, strict=True))), *(b.detach() for b in blocks))

    def loop(chunk: int) -> Iterator[torch.Tensor]:
        for omega in signs(PASSES, shape):
            yield square_norm(torch.autograd.grad(outputs, blocks, omega, retain_graph=True))

    def batched(chunk: int) -> Iterator[torch.Tensor]:
        for _ in range(0, PASSES, chunk):
            omega = signs(chunk, shape)
            yield square_norms(torch.autograd.grad(outputs, blocks, omega, retain_graph=True, is_grads_batched=True))

    def vmapped(chunk: int) -> Iterator[torch.Tensor]:
        each = torch.func.vmap(pull)
        for _ in range(0, PASSES, chunk):
            yield square_norms(each(signs(chunk, shape)))

    return {
        "loop of autograd.grad": contestant(loop, 1),
        **{f"is_grads_batched, chunks of {c}": contestant(batched, c) for c in CHUNKS},
        **{f"vmap of func.vjp, chunks of {c}": contestant(vmapped, c) for c in CHUNKS},
    }


def forward(model: Model) -> dict[str, Contestant]:
    """tr K = E‖Jv‖²."""
    params = {k: p.detach() for k, p in model.module.named_parameters()}
    names, blocks = list(params), tuple(params.values())

    def function(*blocks: torch.Tensor) -> torch.Tensor:
        return model(dict(zip(names, blocks, strict=True)))

    def tangents(count: int) -> Tensors:
        return tuple(signs(count, tuple(b.shape)) for b in blocks)

    @torch.no_grad()
    def duals(chunk: int) -> Iterator[torch.Tensor]:
        for _ in range(PASSES):
            with forward_ad.dual_level():
                pairs = [forward_ad.make_dual(b, v[0]) for b, v in zip(blocks, tangents(1), strict=True)]
                image = forward_ad.unpack_dual(function(*pairs)).tangent
            yield square_norm((image,))

    @torch.no_grad()
    def vmapped(chunk: int) -> Iterator[torch.Tensor]:
        push = torch.func.vmap(lambda *v: torch.func.jvp(function, blocks, v)[1])
        for _ in range(0, PASSES, chunk):
            yield square_norms((push(*tangents(chunk)),))

    @functools.cache
    def linear() -> Callable[..., torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch.fx about its own names
            return torch.func.linearize(function, *blocks)[1]

    @torch.no_grad()
    def linearized(chunk: int) -> Iterator[torch.Tensor]:
        for _ in range(PASSES):
            yield square_norm((linear()(*(v[0] for v in tangents(1))),))

    @torch.no_grad()
    def linearized_vmapped(chunk: int) -> Iterator[torch.Tensor]:
        push = torch.func.vmap(linear())
        for _ in range(0, PASSES, chunk):
            yield square_norms((push(*tangents(chunk)),))

    return {
        "loop of dual numbers": contestant(duals, 1),
        **{f"vmap of func.jvp, chunks of {c}": contestant(vmapped, c) for c in CHUNKS},
        "loop of func.linearize": contestant(linearized, 1),
        **{f"vmap of func.linearize, chunks of {c}": contestant(linearized_vmapped, c) for c in CHUNKS},
    }


def contestant(samples: Callable[[int], Iterator[torch.Tensor]], chunk: int) -> Contestant:
    """Mean and standard error of what `samples` yields."""

    def call(seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        squares = torch.stack([s.reshape(-1) for s in samples(chunk)]).reshape(-1)
        return squares.mean().item(), squares.std().item() / math.sqrt(PASSES)

    return call


def signs(count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """±1, (count, *shape), from random bits."""
    size = count * math.prod(shape)
    words = torch.empty(-(-size // 64), dtype=torch.int64).random_(-(2**63), None)  # without bounds, never negative
    bits = words.view(torch.uint8)
    spread = ((bits[:, None] >> _SHIFTS) & 1).to(torch.float32)
    return spread.mul_(2).sub_(1).reshape(-1)[:size].reshape(count, *shape)


def square_norm(blocks: Tensors) -> torch.Tensor:
    """Of one image."""
    return torch.stack([torch.dot(b.reshape(-1), b.reshape(-1)) for b in blocks]).sum()


def square_norms(blocks: Tensors) -> torch.Tensor:
    """Of the images along the first axis."""
    return torch.stack([torch.linalg.vector_norm(b.flatten(1), dim=1).square() for b in blocks]).sum(0)
