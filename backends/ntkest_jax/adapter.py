"""`linearize` for jax: trace, differentiate, check, and hand out J."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import array_api_compat.numpy as host
import jax
import jax.numpy as jnp
import numpy as np

from ntkest.linearization import (
    NonDifferentiableError,
    Options,
    ShapeError,
    UnsupportedModeError,
    check_dtypes,
    find_examples,
    flatten,
    join,
    pick,
)

from . import inspection
from .derivatives import Closure, Parts, forward, is_traced, reverse, shaped, trace
from .examples import Single, single
from .linearization import JaxLinearization, same_devices
from .modules import Model, Split, unchanging, understand
from .passes import Pass
from .structure import precision, primitives


class JaxBackend:
    """The adapter for functions of pytrees, Flax linen and nnx modules, and Equinox modules."""

    name = "jax"

    def linearize(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> JaxLinearization:
        """Make a linearization; see `ntkest.linearize`.

        The function is traced anew in every call, so that nothing it closes over is ever out of date; what XLA
        compiled for an equal jaxpr is used again.

        Raises
        ------
        NTKError
            One of its subclasses.
        """
        model = understand(target, args, options.params)
        inputs, kwargs = jax.tree.map(unchanging, (model.args, kwargs))
        with same_devices():
            return linearized(Problem(replace(model, args=inputs), kwargs, options), model.holder)

    def value_and_gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `ntkest.linearization.Differentiator`; compiled, once for all arrays of the same shapes."""
        compiled: Callable[..., Any] = jax.jit(jax.value_and_grad(function))
        return compiled


@dataclass(frozen=True, eq=False)
class Problem:
    """A model with its inputs, without parameters."""

    model: Model
    kwargs: dict[str, Any]
    options: Options

    def function(self, split: Split, args: Any = None, kwargs: Any = None) -> Callable[..., Any]:
        """``f(*blocks)``, one array, at the given inputs or at those of the problem."""
        args = self.model.args if args is None else args
        kwargs = self.kwargs if kwargs is None else kwargs

        def call(*blocks: Any) -> Any:
            raw = self.model.call(split.merge(blocks), args, kwargs)
            leaves = flatten(pick(raw, self.options.output))
            for name, leaf in leaves:
                if len(leaves) > 1 and hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jnp.floating):
                    raise NonDifferentiableError(
                        f"the output {name!r} is {leaf.dtype} and has no real derivative; pick others with output="
                    )
            return jnp.asarray(join(leaves, lambda arrays, axis: jnp.concatenate(arrays, axis)))

        return call


def linearized(problem: Problem, holder: Any) -> JaxLinearization:
    """Trace the problem at the parameters in `holder`, differentiate and check."""
    options = problem.options
    split = problem.model.split(holder)
    if options.copy:
        split = Split(split.names, tuple(jnp.copy(b) for b in split.blocks), split.rest, split.merge)
    check_dtypes(jnp, split.blocks, split.names, np.zeros(1, np.float32))
    primal, shape = trace(problem.function(split), *split.blocks)
    if options.copy:
        primal = Closure(primal.jaxpr, tuple(jnp.copy(c) for c in primal.consts))
    check_dtypes(jnp, split.blocks, split.names, shape)
    passes, consts, refusals = differentiated(primal, split.blocks, shape)

    def elsewhere(J: JaxLinearization, params: Any) -> JaxLinearization:
        other = problem.model.split(params)
        if _described(split) != _described(other):
            raise ShapeError(
                "at() takes parameters of the names, shapes and dtypes that linearize was given, "
                f"{_described(split)}; got {_described(other)}"
            )
        if not inspection.same(split.rest, other.rest):  # new batch statistics, say: another function
            return linearized(problem, params)
        with same_devices():
            return inspection.measured(J.replaced(params=other.blocks), shape, options.check, epsilon)

    epsilon = precision(primal.jaxpr)
    J = JaxLinearization(
        params=split.blocks,
        outputs=None,
        param_names=split.names,
        examples=None,
        exponent=0,
        passes=passes,
        consts=consts,
        refusals=refusals,
        elsewhere=elsewhere,
    )
    J = inspection.measured(J, shape, options.check, epsilon)
    inputs = jax.tree.leaves((problem.model.args, problem.kwargs))
    concrete = not is_traced(*split.blocks, *primal.consts, *inputs)
    if concrete and options.check:
        inspection.check_retraced(primal, lambda: trace(problem.function(split), *split.blocks), J, epsilon)
    examples = _examples(problem, split, J, epsilon, options.check and concrete)
    return J.replaced(examples=examples, alone=cache(lambda: _alone(problem, split, shape, examples)))


def differentiated(
    primal: Closure, blocks: tuple[Any, ...], shape: jax.ShapeDtypeStruct
) -> tuple[dict[str, Pass], dict[str, Parts], dict[str, str]]:
    """The passes that a function has with their constants, and for the others what to tell who asks.

    Raises
    ------
    UnsupportedModeError
        There is neither.
    """
    params = tuple(shaped(b) for b in blocks)
    outputs = (shaped(shape),)
    passes: dict[str, Pass] = {}
    consts: dict[str, Parts] = {}
    refusals: dict[str, str] = {}
    pull = None
    try:
        pull = reverse(primal, blocks)
        passes["vjp"], consts["vjp"] = Pass("vjp", pull[0], outputs, params), pull[1]
    except UnsupportedModeError as error:
        refusals["vjp"] = _refusal("reverse", primal, error)
    try:
        push = forward(primal, blocks, pull)
        passes["jvp"], consts["jvp"] = Pass("jvp", push[0], params, outputs), push[1]
    except UnsupportedModeError as error:
        refusals["jvp"] = _refusal("forward", primal, error)
    if not passes:
        raise UnsupportedModeError(f"{refusals['vjp']}; {refusals['jvp']}")
    return passes, consts, refusals


OBSTACLES = ("while", "custom_vjp_call", "pure_callback", "io_callback")
"""Primitives that lack a mode."""


def _refusal(mode: str, primal: Closure, error: Exception) -> str:
    seen = sorted(name for name in primitives(primal.jaxpr) if name.startswith(OBSTACLES))
    where = f" because of the primitive {' or '.join(seen)}" if seen else ""
    way = "use the other mode (J.modes), lax.scan, a static trip count, or a custom rule"
    return f"this function has no {mode} mode{where}: {str(error).splitlines()[0]} To get on, {way}"


def _alone(problem: Problem, split: Split, shape: Any, examples: tuple[int, int] | None) -> Single | None:
    """The function of one example, with the inputs that have N entries along the axis taken apart; None if none.

    None also where inputs cannot be traced, because the function looks at their values.
    """
    if examples is None:
        return None
    axis, count = examples
    leaves, treedef = jax.tree.flatten((problem.model.args, problem.kwargs))
    places = [
        i
        for i, leaf in enumerate(leaves)
        if inspection.is_numeric(leaf) and leaf.ndim > axis and leaf.shape[axis] == count
    ]
    apart = [jnp.moveaxis(jnp.asarray(leaves[i]), axis, 0) for i in places]

    def call(*arrays: Any) -> Any:
        given = list(leaves)
        for place, array in zip(places, arrays[len(split.blocks) :], strict=True):
            given[place] = jnp.expand_dims(array, axis)
        args, kwargs = jax.tree.unflatten(treedef, given)
        return problem.function(split, args, kwargs)(*arrays[: len(split.blocks)])

    try:
        primal, alone = trace(call, *split.blocks, *(a[0] for a in apart))
        if alone.shape != (*shape.shape[:axis], 1, *shape.shape[axis + 1 :]):
            return None
        return single(primal, split.blocks, apart, tuple(shape.shape), axis)
    except (UnsupportedModeError, TypeError, ValueError):  # jax raises the last two where values are looked at
        return None


def _described(split: Split) -> dict[str, str]:
    return {n: f"{b.dtype}{list(b.shape)}" for n, b in zip(split.names, split.blocks, strict=True)}


def _examples(
    problem: Problem, split: Split, J: JaxLinearization, epsilon: float, check: bool
) -> tuple[int, int] | None:
    """Find the axis of examples by calling the function on single ones; on the host, where that compiles nothing."""
    leaves, treedef = jax.tree.flatten((problem.model.args, problem.kwargs))
    places = [i for i, leaf in enumerate(leaves) if inspection.is_numeric(leaf)]
    if not check:
        return find_examples(jnp, lambda _: J.outputs, [], J.outputs, problem.options.batch_axis, epsilon, check=False)

    def call(alone: list[Any]) -> Any:
        given = list(leaves)
        for place, array in zip(places, alone, strict=True):
            given[place] = jnp.asarray(array) if isinstance(leaves[place], jax.Array) else array
        args, kwargs = jax.tree.unflatten(treedef, given)
        closure, _ = trace(problem.function(split, args, kwargs), *split.blocks)
        return np.asarray(inspection.outputs(closure, split.blocks))

    arrays = [np.asarray(leaves[i]) for i in places]
    axis = problem.options.batch_axis
    return find_examples(host, call, arrays, np.asarray(J.outputs), axis, epsilon)
