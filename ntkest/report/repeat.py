"""``--repeat``: the options of an earlier document, and whether its numbers came again."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from .arguments import parser
from .problems import CommandError

ROUNDING = 1000.0
"""Multiples of an estimate's rounding floor by which another order of sums may move it."""

LOOSEST = 1e-2
"""Relative difference that is never put down to rounding, however short the floats."""

UNSTABLE = {"why", "versions", "device"}
"""Entries that may change without the numbers doing so."""


@dataclass(frozen=True)
class Verdict:
    """How the numbers of two runs compare."""

    count: int
    """Numbers compared."""
    different: int
    """Numbers that differ at all."""
    worst: float
    """The largest relative difference."""
    where: str
    """The entry that has it."""
    same: bool
    """Whether all differences are rounding."""

    def text(self, path: str, version: Any) -> str:
        """A sentence for the terminal."""
        versions = "" if version == __version__ else f" (It was made by ntkest {version}; this is {__version__}.)"
        if not self.different:
            return f"Repeated: all {self.count} numbers of {path} are identical.{versions}"
        size = f"{self.different} of {self.count} numbers differ, most {self.where}, relatively by {self.worst:.1e}"
        if self.same:
            return f"Repeated to rounding: {size}.{versions}"
        return f"NOT repeated: {size}.{versions}"


def options(document: Mapping[str, Any], path: str) -> Namespace:
    """The options that a document records, through the parser, so that they are checked like typed ones."""
    arguments = [document["command"]]
    for name, value in document["options"].items():
        option = f"--{str(name).replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value is not None and value is not False:
            arguments.append(f"{option}={value}")
    if document.get("target") is not None:
        arguments += ["--", document["target"]]
    try:
        return parser().parse_args(arguments)
    except CommandError as error:
        raise CommandError(f"{path} cannot be repeated: {error}") from error


def compare(before: Any, after: Any) -> Verdict:
    """Compare the results of two runs, number by number.

    Error bars and ends of intervals are compared at the scale of their estimate.
    """
    rows = list(_pairs(before, after, "", 0.0, 0.0))
    differences = [(_difference(a, b, scale), where, floor) for a, b, where, scale, floor in rows]
    worst, where, _ = max(differences, default=(0.0, "", 0.0))
    same = all(size <= min(ROUNDING * floor, max(LOOSEST, floor)) for size, _, floor in differences)
    return Verdict(len(rows), sum(size > 0 for size, _, _ in differences), worst, where, same)


def _pairs(a: Any, b: Any, where: str, scale: float, floor: float) -> Iterator[tuple[Any, Any, str, float, float]]:
    """Leaves of two trees: both values, the name, and the scale and rounding floor that hold there."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        value = a.get("value")
        scale = abs(value) if isinstance(value, int | float) else scale
        floor = a["floor"] if isinstance(a.get("floor"), float) else floor
        for key in dict.fromkeys((*a, *b)):
            if key not in UNSTABLE:
                name = f"{where}.{key}" if where else str(key)
                yield from _pairs(a.get(key), b.get(key), name, scale, floor)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _pairs(x, y, f"{where}[{index}]", scale, floor)
    else:
        yield a, b, where, scale, floor


def _difference(a: Any, b: Any, scale: float) -> float:
    """|a - b| relative to the larger of them or the scale; infinite where they are not both numbers."""
    if type(a) is type(b) and a == b:
        return 0.0
    if not isinstance(a, float) or not isinstance(b, float):
        return float("inf")
    return abs(a - b) / max(abs(a), abs(b), scale)
