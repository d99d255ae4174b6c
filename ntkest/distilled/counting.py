"""Gradients and passes, counted where they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..linearization import Linearization, checked_examples, leading


@dataclass
class Tally:
    """What was counted so far."""

    gradients: int = 0
    """∇_θ f_c(x) of one output at one example."""
    passes: int = 0
    """Forward, reverse and JVP passes, each of one example."""

    def add(self, gradients: int, passes: int) -> None:
        """So many more."""
        self.gradients += int(gradients)
        self.passes += int(passes)


class Counted:
    """A linearization that counts, one forward pass an example to begin with; in all else the one that it is given."""

    def __init__(self, J: Linearization, tally: Tally) -> None:
        self._J, self._tally = J, tally
        self._count = checked_examples(J.examples)[1]
        tally.add(0, self._count)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._J, name)
        return _COUNTED[name](self, found) if name in _COUNTED else found

    def _add(self, gradients: int, passes: int) -> None:
        self._tally.add(gradients, passes)


Call = Callable[..., Any]


def _vjp(J: Counted, call: Call) -> Call:
    """Over the whole batch, for one gradient a cotangent."""

    def vjp(cotangents: Any) -> Any:
        J._add(cotangents.shape[0], cotangents.shape[0] * J._count)
        return call(cotangents)

    return vjp


def _jvp(J: Counted, call: Call) -> Call:
    def jvp(tangents: Any) -> Any:
        J._add(0, J.passes_per_jvp * leading(tangents) * J._count)
        return call(tangents)

    return jvp


def _examples(J: Counted, call: Call) -> Call:
    def mapped(reduce: Any, probes: Any, **keywords: Any) -> Any:
        J._add(*2 * (leading(probes) * J._count,))
        return call(reduce, probes, **keywords)

    return mapped


def _uses(J: Counted, call: Call) -> Call:
    def uses(cotangents: Any, start: int, stop: int) -> Any:
        J._add(*2 * (cotangents.shape[0] * (min(stop, J._count) - start),))
        return call(cotangents, start, stop)

    return uses


def _sweep(J: Counted, call: Call) -> Call:
    """Of a stream, which makes each batch anew: a forward pass more."""

    def sweep(cotangents: Any, ranges: Sequence[tuple[int, int]]) -> Iterator[Any]:
        for blocks, (start, stop) in zip(call(cotangents, ranges), ranges, strict=True):
            count = cotangents.shape[0]
            J._add(count * (stop - start), (count + 1) * (stop - start))
            yield blocks

    return sweep


_COUNTED: dict[str, Callable[[Counted, Call], Call]] = {
    "jvp": _jvp,
    "vjp": _vjp,
    "map_example_vjp": _examples,
    "uses": _uses,
    "sweep_uses": _sweep,
}
"""The methods that projection takes gradients by."""
