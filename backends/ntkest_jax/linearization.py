"""J at a point, for jax: the object that estimators see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkest.linearization import (
    Array,
    AsOperator,
    Blocks,
    DeviceMismatchError,
    Expand,
    InvalidValueError,
    Reduce,
    StaleLinearizationError,
    Tree,
    UnsupportedModeError,
    checked_chunk,
    checked_examples,
    example_sizes,
    identity,
    leading,
)

from .cache import Memory, by_value
from .compact import compacted
from .derivatives import Parts
from .examples import Single, run_examples, run_uses
from .passes import Pass, check_shapes, default_chunk, run

_functions: Memory[Any] = Memory(256)


@dataclass(frozen=True, eq=False)
class JaxLinearization(AsOperator):
    """J = ∂f/∂θ of a traced function at concrete or traced parameters. See `ntkest.linearization.Linearization`.

    Everything in it is immutable: the function is a jaxpr, and what it closed over was hoisted and, where it could
    change, copied. Inside `jax.jit`, `jax.grad` or `jax.vmap` its methods are plain traced code.
    """

    params: tuple[Array, ...]
    outputs: Array
    param_names: tuple[str, ...]
    examples: tuple[int, int] | None
    exponent: int
    passes: dict[str, Pass]
    consts: dict[str, Parts]
    refusals: dict[str, str]
    elsewhere: Callable[[JaxLinearization, Any], JaxLinearization]
    alone: Callable[[], Single | None] = lambda: None
    """The function of one example; None where it cannot be traced so."""

    @property
    def xp(self) -> Any:
        """The namespace `jax.numpy`."""
        return jnp

    @property
    def modes(self) -> frozenset[str]:
        """The modes that this function has."""
        return frozenset(self.passes)

    @property
    def passes_per_jvp(self) -> int:
        """2 where forward mode is made from two reverse passes (`jax.custom_vjp`), else 1."""
        return self.passes["jvp"].derivative.passes if "jvp" in self.passes else 1

    def jvp(self, tangents: Blocks) -> Array:
        """Blocks (k, P_l) to J v, (k, M). Costs a forward and k linear passes."""
        return self.map_jvp(identity, tuple(tangents))

    def vjp(self, cotangents: Array) -> Blocks:
        """(k, M) to Jᵀ ω, blocks (k, P_l). Costs a forward and k reverse passes."""
        images: Blocks = self.map_vjp(identity, cotangents)
        return images

    def map_jvp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_jvp`: one compiled program, in which the primal is computed once."""
        return self._map("jvp", reduce, probes, expand, chunk)

    def map_vjp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_vjp`: one compiled program, in which the primal is computed once."""
        return self._map("vjp", reduce, probes, expand, chunk)

    @cached_property
    def compact(self) -> JaxLinearization:
        """See `ntkest.linearization.Compacted`; J itself where it would not be much smaller."""
        self._check_alive("vjp" if "vjp" in self.modes else "jvp")
        made = compacted(self.passes, self.consts, self.params, self.platform)
        if made is None:
            return self
        params, passes, consts = made
        found = self.replaced(
            params=params, passes=passes, consts=consts, examples=None, alone=lambda: None, elsewhere=_nowhere
        )
        found.__dict__["compact"] = found
        return found

    @property
    def example_size(self) -> int:
        """See `ntkest.linearization.ExampleGradients`: of dense layers only inputs and cotangents count."""
        checked_examples(self.examples)
        step = self.alone()
        if step is None:
            raise AttributeError("this function has no gradients of single examples")
        return step.numbers

    @property
    def map_example_vjp(self) -> Callable[..., Tree]:
        """See `ntkest.linearization.ExampleGradients`; there if the function can be traced on one example."""
        if "vjp" not in self.modes or (self.examples is not None and self.alone() is None):
            raise AttributeError("this function has no gradients of single examples")
        return self._map_examples

    def _map_examples(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        _, count = checked_examples(self.examples)
        step = self.alone()
        assert step is not None
        self._check_alive("vjp")
        if any(not isinstance(a, jax.core.Tracer) and a.is_deleted() for a in step.inputs):
            raise StaleLinearizationError("an input was donated or deleted after J was made; make J again")
        probes = jax.tree.map(_as_jax, probes)
        if expand is None:
            check_shapes(self._pass("vjp"), (probes,))
        sizes = example_sizes(chunk, step.default(self.platform), count, leading(probes))
        with same_devices():
            return run_examples(step, self.params, reduce, probes, expand, sizes, self.platform)

    def uses(self, cotangents: Any, start: int, stop: int) -> Any:
        """See `ntkest.linearization.Uses`."""
        step = self.alone()
        if step is None:
            raise AttributeError("this function has no gradients of single examples")
        self._check_alive("vjp")
        check_shapes(self._pass("vjp"), (cotangents,))
        with same_devices():
            return run_uses(step, self.params, _as_jax(cotangents), start, stop - start)

    def chunk_size(self, mode: str, count: int) -> int:
        """Probes pushed through together by default: a rule on the jaxpr and the platform, never a stopwatch."""
        return default_chunk(self._pass(mode), count, self.platform)

    def at(self, params: Any) -> JaxLinearization:
        """The same function at other parameters. Nothing is traced again unless constants among them differ."""
        return self.elsewhere(self, params)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(function)`, the same one for equal functions."""
        compiled: Callable[..., Any] = _functions.get(by_value(function), lambda: jax.jit(function))
        return compiled

    @property
    def platform(self) -> str:
        """Where the parameters live: "cpu", "gpu" or "tpu"."""
        first = self.params[0]
        return jax.default_backend() if isinstance(first, jax.core.Tracer) else next(iter(first.devices())).platform

    def _map(self, mode: str, reduce: Reduce, probes: Tree, expand: Expand | None, chunk: int | None) -> Tree:
        step = self._pass(mode)
        self._check_alive(mode)
        probes = jax.tree.map(_as_jax, probes)
        count = leading(probes)
        size = checked_chunk(chunk, self.chunk_size(mode, count), count)
        with same_devices():
            return run(step, self.consts[mode], self.params, reduce, probes, expand, size, self.platform)

    def _pass(self, mode: str) -> Pass:
        if mode not in ("jvp", "vjp"):
            raise UnsupportedModeError(f'there are the modes "jvp" and "vjp", not {mode!r}')
        if mode not in self.passes:
            raise UnsupportedModeError(self.refusals[mode])
        return self.passes[mode]

    def _check_alive(self, mode: str) -> None:
        held = (*self.params, *self.consts[mode][0], *self.consts[mode][1])
        if any(not isinstance(a, jax.core.Tracer) and a.is_deleted() for a in held):
            raise StaleLinearizationError(
                "a parameter or input was donated or deleted after J was made; make J again, or with copy=True"
            )

    def replaced(self, **changes: Any) -> JaxLinearization:
        """A copy with other fields."""
        return replace(self, **changes)


def _nowhere(J: JaxLinearization, params: Any) -> JaxLinearization:
    raise InvalidValueError("a compact form belongs to its point; take that of J.at(params)")


@contextmanager
def same_devices() -> Iterator[None]:
    """Turn jax's complaint about arrays on different devices into ours."""
    try:
        yield
    except ValueError as error:
        if "incompatible devices" not in str(error):
            raise
        raise DeviceMismatchError(
            "parameters, inputs and probes must be on the same devices; move them with jax.device_put. "
            + str(error).splitlines()[0]
        ) from error


def _as_jax(array: Any) -> Any:
    if isinstance(array, jax.Array):
        return array
    if isinstance(array, np.ndarray):
        return jnp.asarray(array)
    raise DeviceMismatchError(f"probes must be jax arrays here, not {type(array).__module__}.{type(array).__name__}")
