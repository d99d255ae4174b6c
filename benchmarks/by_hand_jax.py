"""What one would write in jax instead of ntkest: each way to make 32 passes and take the trace from them.

A contestant takes a seed and returns (trace, standard error). Signs are bits of jax's default generator, spread out
with a shift: 50 times faster than `jax.random.rademacher`, which spends 32 bits a sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .cases import PASSES
from .models_jax import Model

Contestant = Callable[[int], tuple[float, float]]
Squares = Callable[[Any], Any]
"""Keys (c,) to ‖image‖², (c,)."""

CHUNKS = (4, 8, 16, 32)


def contestants(model: Model, mode: str) -> dict[str, Contestant]:
    """All of one mode, by name. `push` is ready where the primal was computed beforehand."""

    def function(params: Any) -> Any:
        return model.function(params, model.x)

    prepare = _pullback if mode == "reverse" else _pushforward

    def whole(loop: Callable[[Squares, Any], Any]) -> Contestant:
        """The primal, the probes and the passes in one program."""

        @jax.jit
        def program(params: Any, key: Any) -> Any:
            return _statistics(loop(prepare(function, params), jax.random.split(key, PASSES)))

        return lambda seed: _floats(program(model.params, jax.random.key(seed)))

    def stepwise(chunk: int) -> Contestant:
        """A program for the primal, run once, and one for a chunk of passes, called in a Python loop."""
        linear = jax.jit(lambda params: _linear(function, params, mode))(model.params)
        split = jax.jit(lambda key: list(jax.random.split(key, PASSES).reshape(-1, chunk)))
        step = jax.jit(lambda linear, keys: _vmapped(_squares(linear, function, model.params, mode), keys))
        finish = jax.jit(lambda parts: _statistics(jnp.concatenate(parts)))

        def call(seed: int) -> tuple[float, float]:
            return _floats(finish([step(linear, keys) for keys in split(jax.random.key(seed))]))

        return call

    mapped = {f"jit of lax.map, chunks of {c}": whole(_mapped(c)) for c in (1, *CHUNKS[:-1])} if model.loops else {}
    return {
        "jit of vmap": whole(_vmapped),
        **mapped,
        "unrolled jit": whole(_unrolled(1)),
        **{f"unrolled jit, chunks of {c}": whole(_unrolled(c)) for c in CHUNKS[:-1]},
        "loop over a jitted pass": stepwise(1),
        **{f"loop over a jitted chunk of {c}": stepwise(c) for c in CHUNKS},
    }


# One pass -------------------------------------------------------------------------------------------------------------


def _linear(function: Callable[..., Any], params: Any, mode: str) -> Any:
    """The pullback or the pushforward, a pytree of residuals that can be an argument of a jitted function."""
    return jax.vjp(function, params)[1] if mode == "reverse" else jax.linearize(function, params)[1]


def _squares(linear: Any, function: Callable[..., Any], params: Any, mode: str) -> Squares:
    """Key to ‖image of a random probe‖²."""
    like = jax.eval_shape(function, params) if mode == "reverse" else params
    return lambda key: _square_norm(linear(_signs(key, like)))


def _pullback(function: Callable[..., Any], params: Any) -> Squares:
    return _squares(_linear(function, params, "reverse"), function, params, "reverse")


def _pushforward(function: Callable[..., Any], params: Any) -> Squares:
    return _squares(_linear(function, params, "forward"), function, params, "forward")


def _signs(key: Any, like: Any) -> Any:
    """±1 in the shapes of `like`."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(treedef, [_sign(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def _sign(key: Any, shape: tuple[int, ...]) -> Any:
    size = math.prod(shape)
    bits = jax.random.bits(key, (-(-size // 32),), jnp.uint32)
    spread = (bits[:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return (1 - 2 * spread.astype(jnp.float32)).reshape(-1)[:size].reshape(shape)


def _square_norm(image: Any) -> Any:
    return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(image))


# Many passes ----------------------------------------------------------------------------------------------------------


def _vmapped(square: Squares, keys: Any) -> Any:
    return square(keys[0])[None] if len(keys) == 1 else jax.vmap(square)(keys)


def _mapped(chunk: int) -> Callable[[Squares, Any], Any]:
    return lambda square, keys: lax.map(lambda k: _vmapped(square, k), keys.reshape(-1, chunk)).reshape(-1)


def _unrolled(chunk: int) -> Callable[[Squares, Any], Any]:
    return lambda square, keys: jnp.concatenate([_vmapped(square, k) for k in keys.reshape(-1, chunk)])


def _statistics(squares: Any) -> Any:
    return squares.mean(), squares.std(ddof=1) / math.sqrt(PASSES)


def _floats(pair: Any) -> tuple[float, float]:
    value, error = pair
    return float(value), float(error)
