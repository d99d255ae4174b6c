"""The linearization of a torch model: a value that owns a point, and routes through it in both modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import array_api_compat.torch
import torch

from ntkest.linearization import (
    Array,
    AsOperator,
    Blocks,
    DeviceMismatchError,
    Expand,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    Reduce,
    Tree,
    UnsupportedModeError,
    as_probes,
    as_tangents,
    check_adjoint,
    check_finite,
    checked_chunk,
    checked_examples,
    example_sizes,
    leading,
    map_chunks,
    map_example_chunks,
    same_kernel,
)

from .chunking import chunk_size, example_chunk
from .compact import Compact, compacted
from .errors import out_of_memory
from .examples import ExampleReverse
from .forward import Forward, Route
from .places import moved
from .products import FastProducts
from .programs import Point, Program
from .reverse import make_reverse, walk
from .watch import Watch

xp: ModuleType = array_api_compat.torch


class TorchLinearization(AsOperator):
    """J at a point of a torch model; see `ntkest.linearization.Linearization` for the protocol.

    Attributes
    ----------
    convolves : bool
        Whether a convolution was seen in the graph, which decides the default chunk on a CPU.
    epsilon : float
        The coarsest rounding on the way through the model, from which checks derive their tolerance.
    """

    xp = xp

    def __init__(self, program: Program, point: Point, watch: Watch, route: Route, live: bool, check: bool) -> None:
        self.modes = frozenset({"jvp", "vjp"})
        self._program = program
        self._point = point
        self._watch = watch
        self._route = route
        self.live = live
        self._check = check
        self._reverse = make_reverse(program, point, live)
        outputs, _ = self._reverse.graph()
        nodes = walk(outputs)
        self._forward = Forward(program, point, live, self._reverse, route, nodes)
        self.convolves = any("onvolution" in node for node in nodes)
        self.outputs = outputs if live else outputs.detach()
        self.params = tuple(point.blocks.values())
        self.param_names = tuple(name or "params" for name in point.blocks)
        self.examples: tuple[int, int] | None = None
        self._by_example: ExampleReverse | None = None
        self._compact: TorchLinearization | None = None
        self.exponent = 0
        self.epsilon = 0.0
        self.fast_products: Callable[[], AbstractContextManager[object]] = nullcontext if live else FastProducts

    @property
    def passes_per_jvp(self) -> int:
        """1, or 2 where an operation lacks a forward derivative and a double VJP stands in."""
        return self._forward.passes_per_jvp

    def finish(self, examples: tuple[int, int] | None) -> TorchLinearization:
        """Set what was seen of examples and, if checks are on, compare the two modes and find `exponent`."""
        self.examples = examples
        if self._check:
            try:
                self.exponent = check_adjoint(self, self.epsilon)
            except UnsupportedModeError:
                self.modes = frozenset({"vjp"})
                self.exponent = check_adjoint(self, self.epsilon)
        return self

    # -- the two maps --------------------------------------------------------------------------------------------

    def jvp(self, tangents: Blocks) -> Array:
        """Blocks (k, P_l) to J v, (k, M); k forward passes (twice that where `passes_per_jvp` is 2)."""
        return self.map_jvp(_identity, tuple(tangents))

    def vjp(self, cotangents: Array) -> Blocks:
        """(k, M) to Jᵀ ω, blocks (k, P_l); k reverse passes."""
        return self.map_vjp(_identity, cotangents)  # type: ignore[no-any-return]

    def map_jvp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_jvp`."""
        if self._follows(probes):
            return self._following().map_jvp(reduce, probes, expand=expand, chunk=chunk)
        self._watch.check()
        count = leading(probes)
        size = checked_chunk(chunk, self.chunk_size("jvp", count), count)
        return map_chunks(xp, self._push, reduce, probes, expand, size)

    def map_vjp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_vjp`."""
        if self._follows(probes):
            return self._following().map_vjp(reduce, probes, expand=expand, chunk=chunk)
        self._watch.check()
        count = leading(probes)
        size = checked_chunk(chunk, self.chunk_size("vjp", count), count)
        graph = self._reverse.graph()

        def pull(cotangents: Any) -> Blocks:
            omega = self._probes(cotangents, self.outputs, "cotangents")
            images = self._reverse.passes(graph, omega.reshape(-1, *self.outputs.shape))
            return tuple(image.reshape(image.shape[0], -1) for image in images)

        return self._reverse.within(graph[1], lambda: map_chunks(xp, pull, reduce, probes, expand, size))

    def _follows(self, probes: Tree) -> bool:
        """Whether images are to have derivatives in the probes, which come from live parameters of another model."""
        given = probes if isinstance(probes, tuple) else (probes,)
        on_tape = any(isinstance(p, torch.Tensor) and p.requires_grad for p in given)
        return on_tape and not self.live and torch.is_grad_enabled()

    def _following(self) -> TorchLinearization:
        """With passes that are differentiable, at the same parameters, which are not."""
        J = TorchLinearization(self._program, self._point, self._watch, self._route, live=True, check=False)
        J.modes, J.exponent, J.epsilon = self.modes, self.exponent, self.epsilon
        J._reverse.away = self._reverse.away
        return J

    @property
    def compact(self) -> TorchLinearization:
        """See `ntkest.linearization.Compacted`; J itself where it would not be much smaller, or parameters are live."""
        if self._compact is None:
            self._watch.check()
            program = None if self.live else compacted(self._program, self._point)
            self._compact = self if program is None else self._in_coordinates(program) or self
        return self._compact

    def _in_coordinates(self, program: Compact) -> TorchLinearization | None:
        """The compact form, which was seen to have the same kernel; None if it has not, or cannot be run."""
        try:
            J = TorchLinearization(program, program.point(), self._watch, Route(), live=False, check=False)
            J.modes, J.exponent, J.epsilon, J._compact = self.modes, self.exponent, self.epsilon, J
            J._reverse.away = self._reverse.away
            same = same_kernel(self, J, self.epsilon) and J.passes_per_jvp == self.passes_per_jvp
        except (RuntimeError, UnsupportedModeError) as error:
            if out_of_memory(error):
                raise
            return None
        return J if same else None

    @property
    def example_size(self) -> int:
        """See `ntkest.linearization.ExampleGradients`: of dense layers only inputs and cotangents count."""
        return self._examples().numbers

    def _examples(self) -> ExampleReverse:
        if self._by_example is None:
            examples = checked_examples(self.examples)
            self._by_example = ExampleReverse(self._program, self._point, self.live, examples, self.outputs.shape)
        return self._by_example

    @property
    def map_example_vjp(self) -> Callable[..., Tree]:
        """See `ntkest.linearization.ExampleGradients`; there if the model can be called on one example."""
        if self.examples is not None and not self._examples().possible:
            raise AttributeError("the model gives no outputs of one example alone")
        return self._map_examples

    def _map_examples(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """The forward is run again, for each chunk."""
        self._watch.check()
        by_example, count = self._examples(), checked_examples(self.examples)[1]

        def pullback(start: int, stop: int) -> Callable[[Any], Tree]:
            pull = by_example.pullback(start, stop)
            return lambda omega: pull(self._probes(omega, self.outputs, "cotangents").reshape(-1, *self.outputs.shape))

        sizes = example_sizes(chunk, example_chunk(by_example.numbers, self.outputs.device), count, leading(probes))
        return map_example_chunks(xp, pullback, reduce, probes, expand, count, sizes)

    def uses(self, cotangents: torch.Tensor, start: int, stop: int) -> Tree:
        """See `ntkest.linearization.Uses`."""
        self._watch.check()
        omega = self._probes(cotangents, self.outputs, "cotangents").reshape(-1, *self.outputs.shape)
        return self._examples().pullback(start, stop, shared=True)(omega)

    def chunk_size(self, mode: str, count: int) -> int:
        """How many probes go through together by default; see `chunking.chunk_size` for the rule."""
        size = sum(p.numel() for p in self.params)
        return chunk_size(mode, count, self.outputs.numel(), size, self.outputs.device, self.convolves)

    def at(self, params: Any) -> TorchLinearization:
        """The same function at other parameters.

        Parameters
        ----------
        params : mapping, pytree, module or sequence of tensors
            For a module: another module's ``state_dict()``, any part of it, or such a module. For a function: a
            pytree like the first. For both: the blocks, in the order of `params`.

        Notes
        -----
        Costs one forward and, with checks on, one pass a mode. What was found out about examples and about
        forward mode is kept.
        """
        if isinstance(self._program, Compact):
            raise InvalidValueError("a compact form belongs to its point; take that of J.at(params)")
        self._watch.check()
        point, watch = moved(self._program, self._point, params, self.live)
        J = TorchLinearization(self._program, point, watch, self._route, self.live, self._check)
        J.epsilon, J._reverse.away = self.epsilon, True
        if self._check:
            check_finite(xp, J.params, J.param_names, J.outputs)
        return J.finish(self.examples)

    # -- probes in and images out --------------------------------------------------------------------------------

    def _push(self, tangents: Any) -> Array:
        checked = as_tangents(xp, self.params, self.param_names, tangents)
        blocks = tuple(
            self._probes(v, p, f"tangents of {name!r}").reshape(v.shape[0], *p.shape)
            for v, p, name in zip(checked, self.params, self.param_names, strict=True)
        )
        images = self._forward.passes(blocks)
        return images.reshape(images.shape[0], -1)

    def _probes(self, array: Any, like: torch.Tensor, what: str) -> torch.Tensor:
        if not isinstance(array, torch.Tensor):
            raise InvalidTypeError(f"{what} must be a torch.Tensor, not {type(array).__name__}")
        if array.device != like.device:
            raise DeviceMismatchError(f"{what} are on {array.device}, but the model is on {like.device}")
        if not array.is_floating_point():
            raise NonDifferentiableError(f"{what} are {array.dtype}; {like.dtype} is needed")
        probes: torch.Tensor = as_probes(xp, (-1, math.prod(like.shape)), array, what)
        if probes.is_inference():
            with torch.inference_mode(False):
                probes = probes.clone()
        return probes.to(like.dtype)


def _identity(images: Sequence[Any] | Any) -> Any:
    return images
