"""What the peers on JAX share: compiled once a budget, and products with K counted in the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .contest import CannotRunError, Run
from .operators import Operator

jax.config.update("jax_enable_x64", True)

Estimate = Callable[[Any, Any], Any]
"""A key and K (n, n) to the estimate, array-only."""


class Compiled:
    """An estimator of a family, each member compiled once for each size and number of samples.

    `make(n, samples)` returns the estimate; `products` is the number of products with K a sample, from which the
    samples that a budget pays for follow. What is spent is counted in the program itself.
    """

    def __init__(self, make: Callable[[int, int], Estimate], products: int) -> None:
        self.make = make
        self.products = products
        self.programs: dict[tuple[int, int], tuple[Any, int]] = {}

    def __call__(self, operator: Operator, budget: int) -> Run:
        n = operator.jacobian.shape[0]
        samples = budget // (2 * self.products)
        if samples < 1:
            raise CannotRunError(f"a sample takes {2 * self.products} passes")
        K = jnp.asarray(operator.kernel)
        if (n, samples) not in self.programs:
            estimate = self.make(n, samples)
            count = count_products(jax.make_jaxpr(estimate)(jax.random.key(0), K).jaxpr, n)
            self.programs[n, samples] = jax.jit(estimate), 2 * count
        program, passes = self.programs[n, samples]

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            return (float(program(jax.random.key(seed), K)),), passes

        return run


def count_products(jaxpr: Any, n: int) -> int:
    """Columns that a program multiplies by an (n, n) matrix; of the branches of a condition, the most."""
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, [_inner(value) for value in equation.params.values()]
        programs = [program for group in inner for program in group]
        if name == "dot_general" and any(v.aval.shape == (n, n) for v in equation.invars):
            total += equation.outvars[0].aval.size // n
        elif name == "cond":
            total += max(count_products(program, n) for program in programs)
        elif name == "scan":
            total += equation.params["length"] * sum(count_products(program, n) for program in programs)
        elif name == "while" and any(count_products(program, n) for program in programs):
            raise NotImplementedError("products inside a loop of unknown length")
        else:
            total += sum(count_products(program, n) for program in programs)
    return total


def _inner(value: Any) -> list[Any]:
    """Programs among the parameters of an equation."""
    values = value if isinstance(value, tuple | list) else [value]
    programs = [getattr(v, "jaxpr", v) for v in values]
    return [program for program in programs if hasattr(program, "eqns")]
