"""ntkest in the contest of estimators: every value of ``method=`` that keeps to the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import ntkest
from ntkest.estimators import METHODS
from ntkest.inference import effective_rank_of, frobenius_norm_of, trace_of
from ntkest.linearization import InvalidValueError, UnsupportedModeError
from ntkest.quantities import measure

from .contest import QUANTITIES, CannotRunError, Method, Run
from .operators import Operator

PACKAGES = ("ntkest", "numpy", "scipy")
MEASURED = {"trace": trace_of(0), "frobenius_norm": frobenius_norm_of(0), "effective_rank": effective_rank_of(0)}


def methods() -> list[Method]:
    """All of them, found by name.

    Of a method that is named, one call gives the norm and the effective rank: the norm alone costs the same and is the
    same number (a test holds us to that). What "auto" chooses may differ from quantity to quantity.
    """
    return [
        Method(name, some, _prepare(name, some))
        for name in METHODS
        for some in ([(q,) for q in QUANTITIES] if name == "auto" else [QUANTITIES[:1], QUANTITIES[1:]])
    ]


def separate() -> list[Method]:
    """A call a quantity."""
    return [Method(name, (q,), _prepare(name, (q,))) for name in METHODS for q in QUANTITIES]


def estimates(quantities: Sequence[str], J: Any, **keywords: Any) -> list[ntkest.Estimate]:
    """As a user asks for one, or as `ntkest.summary` asks for several."""
    if len(quantities) == 1:
        return [getattr(ntkest, quantities[0])(J, **keywords)]
    return measure(J, [MEASURED[name] for name in quantities], **keywords)


def _prepare(method: str, quantities: tuple[str, ...]) -> Callable[[Operator, int], Run]:
    def prepare(operator: Operator, budget: int) -> Run:
        if method == "exact" and min(operator.jacobian.shape) > budget:
            raise CannotRunError("needs a pass an output or parameter")
        J, counter = counted(operator)

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            counter.passes = 0
            try:
                found = estimates(quantities, J, method=method, passes=budget, seed=seed)
            except (InvalidValueError, UnsupportedModeError) as error:  # too few passes, or no such quantity
                raise CannotRunError(str(error)) from error
            return tuple(map(float, found)), max(found[0].passes, counter.passes)

        return run

    return prepare


class Counter:
    """Probes pushed through a linearization."""

    passes = 0


def counted(operator: Operator) -> tuple[Any, Counter]:
    """A linearization that counts its own passes, whatever the estimators say."""
    shape = None if operator.examples is None else (operator.examples, len(operator.jacobian) // operator.examples)
    J, counter = ntkest.from_jacobian(operator.jacobian, output_shape=shape), Counter()

    def counting(push: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            probes = next(a for a in arguments if not callable(a))
            counter.passes += (probes[0] if isinstance(probes, tuple | list) else probes).shape[0]
            return push(*arguments, **keywords)

        return call

    for name in ("jvp", "vjp", "map_example_vjp"):  # where every pass goes through; the last is optional
        if getattr(J, name, None) is not None:
            setattr(J, name, counting(getattr(J, name)))
    return J, counter


def duplicated() -> list[Method]:
    """Methods whose second half of probes repeats the first half."""
    return [
        Method(name, (quantity,), _prepare_duplicated(name, quantity))
        for name in METHODS
        if name not in ("auto", "exact")
        for quantity in QUANTITIES[:2]
    ]


def _prepare_duplicated(method: str, quantity: str) -> Callable[[Operator, int], Run]:
    def prepare(operator: Operator, budget: int) -> Run:
        J, counter = counted(operator)

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            try:
                drawn = ntkest.draw_probes(J, budget // 8, seed, method=method)
            except InvalidValueError as error:
                raise CannotRunError(str(error)) from error
            counter.passes = 0
            (found,) = estimates((quantity,), J, method=method, probes=_twice(drawn))
            return (float(found),), counter.passes

        return run

    return prepare


def _twice(tree: Any) -> Any:
    if isinstance(tree, tuple):
        parts = [_twice(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return None if tree is None else np.concatenate([tree, tree])
