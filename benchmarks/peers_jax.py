"""What the peers on JAX share: compiled once a budget, and products with K counted in the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .contest import CannotRunError, Run
from .operators import Operator

Estimate = Callable[[Any, Any], Any]
"""A key and K (n, n), or J (n, P), to the estimate, array-only."""


class Compiled:
    """An estimator of a family, each member compiled once for each size and number of samples.

    `make(n, samples)` returns the estimate; `products` is the number of products a sample, from which the samples
    that a budget pays for follow. What is spent is counted in the program itself. A product takes two passes if it is
    one with K, one if `given` is "J".
    """

    def __init__(self, make: Callable[[int, int], Estimate], products: int, given: str = "K") -> None:
        self.make = make
        self.products = products
        self.given = given
        self.programs: dict[tuple[Any, int], tuple[Any, int]] = {}

    def __call__(self, operator: Operator, budget: int) -> Run:
        each = 2 if self.given == "K" else 1
        samples = budget // (each * self.products)
        if samples < 1:
            raise CannotRunError(f"a sample takes {each * self.products} passes")
        matrix = jnp.asarray(operator.kernel if self.given == "K" else operator.jacobian)
        if matrix.dtype != operator.jacobian.dtype:
            raise RuntimeError("set JAX_ENABLE_X64=1: the contest is one in float64")
        if (matrix.shape, samples) not in self.programs:
            estimate = self.make(len(matrix), samples)
            count = count_products(jax.make_jaxpr(estimate)(jax.random.key(0), matrix).jaxpr, matrix.shape)
            self.programs[matrix.shape, samples] = jax.jit(estimate), each * count
        program, passes = self.programs[matrix.shape, samples]

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            return (float(program(jax.random.key(seed), matrix)),), passes

        return run


def count_products(jaxpr: Any, shape: tuple[int, int]) -> int:
    """Vectors that a program multiplies by a matrix of this shape; of the branches of a condition, the most."""
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, [_inner(value) for value in equation.params.values()]
        programs = [program for group in inner for program in group]
        if name == "dot_general":
            for operand, axes in zip(equation.invars, equation.params["dimension_numbers"][0], strict=True):
                if operand.aval.shape in (shape, shape[::-1]):
                    over = operand.aval.shape[axes[0]]
                    total += equation.outvars[0].aval.size * over // (shape[0] * shape[1])
                    break
        elif name == "cond":
            total += max(count_products(program, shape) for program in programs)
        elif name == "scan":
            total += equation.params["length"] * sum(count_products(program, shape) for program in programs)
        elif name == "while" and any(count_products(program, shape) for program in programs):
            raise NotImplementedError("products inside a loop of unknown length")
        else:
            total += sum(count_products(program, shape) for program in programs)
    return total


def _inner(value: Any) -> list[Any]:
    """Programs among the parameters of an equation."""
    values = value if isinstance(value, tuple | list) else [value]
    programs = [getattr(v, "jaxpr", v) for v in values]
    return [program for program in programs if hasattr(program, "eqns")]
