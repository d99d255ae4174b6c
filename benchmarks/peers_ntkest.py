"""ntkest in the contest of estimators: every value of ``method=`` that keeps to the budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ntkest
from ntkest.estimators import METHODS
from ntkest.linearization import InvalidValueError

from .contest import QUANTITIES, CannotRunError, Method, Run
from .operators import Operator

PACKAGES = ("ntkest", "numpy", "scipy")


def methods() -> list[Method]:
    """All of them, found by name."""
    return [Method(name, quantity, _prepare(name, quantity)) for name in METHODS for quantity in QUANTITIES]


def _prepare(method: str, quantity: str) -> Callable[[Operator, int], Run]:
    estimate = getattr(ntkest, quantity)

    def prepare(operator: Operator, budget: int) -> Run:
        if method == "exact" and min(operator.jacobian.shape) > budget:
            raise CannotRunError("needs a pass an output or parameter")
        J, counter = counted(operator.jacobian)

        def run(seed: int) -> tuple[float, int]:
            counter.passes = 0
            try:
                found = estimate(J, method=method, passes=budget, seed=seed)
            except InvalidValueError as error:
                if "too few" in str(error):
                    raise CannotRunError(str(error)) from error
                raise
            return float(found), max(found.passes, counter.passes)

        return run

    return prepare


class Counter:
    """Probes pushed through a linearization."""

    passes = 0


def counted(jacobian: np.ndarray) -> tuple[Any, Counter]:
    """A linearization that counts its own passes, whatever the estimators say."""
    J, counter = ntkest.from_jacobian(jacobian), Counter()

    def counting(push: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(probes: Any) -> Any:
            counter.passes += (probes[0] if isinstance(probes, tuple | list) else probes).shape[0]
            return push(probes)

        return call

    J.jvp, J.vjp = counting(J.jvp), counting(J.vjp)  # type: ignore[method-assign]
    return J, counter


def duplicated() -> list[Method]:
    """Methods whose second half of probes repeats the first half."""
    return [
        Method(name, quantity, _prepare_duplicated(name, quantity))
        for name in METHODS
        if name not in ("auto", "exact")
        for quantity in QUANTITIES[:2]
    ]


def _prepare_duplicated(method: str, quantity: str) -> Callable[[Operator, int], Run]:
    estimate = getattr(ntkest, quantity)

    def prepare(operator: Operator, budget: int) -> Run:
        J, counter = counted(operator.jacobian)

        def run(seed: int) -> tuple[float, int]:
            try:
                drawn = ntkest.draw_probes(J, budget // 8, seed, method=method)
            except InvalidValueError as error:
                raise CannotRunError(str(error)) from error
            counter.passes = 0
            found = estimate(J, method=method, probes=_twice(drawn))
            return float(found), counter.passes

        return run

    return prepare


def _twice(tree: Any) -> Any:
    if isinstance(tree, tuple):
        parts = [_twice(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return None if tree is None else np.concatenate([tree, tree])
