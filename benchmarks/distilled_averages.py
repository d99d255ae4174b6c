"""Averages over the seeds of the benchmark of distillation, and differences from a baseline."""

from __future__ import annotations

import math
import statistics
from typing import Any

from scipy.special import stdtrit

from .distilled_settings import CLASSES

Row = dict[str, Any]
Cell = dict[str, Any]

BY_GRADIENTS = ("kmeans", "farthest", "leverage", "rpcholesky")
"""Data stages that choose points by the gradients of all images."""

SURE = 0.95
"""Of the interval of a mean difference that is to be without zero where there is said to be one."""


def cells_of(found: Row, network: str | None = None) -> list[Cell]:
    """Those of one network, or of all."""
    return [cell for cell in found["cells"] if network in (None, cell["network"])]


def with_points(found: Row, network: str) -> list[Cell]:
    """Those that data stages were run for."""
    return [cell for cell in cells_of(found, network) if "points" in cell]


def networks_of(found: Row) -> list[str]:
    return list(dict.fromkeys(cell["network"] for cell in found["cells"]))


def in_cell(cell: Cell, part: str, key: str, **where: Any) -> float:
    """The mean of a number over the rows of one network that are so; a median of condition numbers and the like."""
    values = [row[key] for row in cell[part] if all(row[name] == value for name, value in where.items())]
    known = [math.inf if value is None else value for value in values]
    return statistics.median(known) if key in ("condition", "smallest") else statistics.fmean(known)


def average(cells: list[Cell], part: str, key: str, **where: Any) -> float:
    """The same over seeds."""
    values = [in_cell(cell, part, key, **where) for cell in cells]
    return statistics.median(values) if key in ("condition", "smallest") else statistics.fmean(values)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """A mean and its standard error, not a number for a single value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def from_global(cells: list[Cell], method: str, size: int) -> tuple[float, float]:
    """What its fidelity is above that of the global eigenvectors of the same network, and the standard error."""
    return mean_and_error([above(cell, method, "global", size) for cell in cells])


def above(cell: Row, method: str, other: str, size: int) -> float:
    """A difference of fidelities for one network."""
    ours, theirs = (in_cell(cell, "compressions", "fidelity", method=name, size=size) for name in (method, other))
    return ours - theirs


def error_ratio(cells: list[Cell], method: str, size: int) -> float:
    """Its mean squared error of logits over that of the global eigenvectors, the geometric mean over networks."""
    return statistics.geometric_mean(
        in_cell(cell, "compressions", "logit_mse", method=method, size=size)
        / in_cell(cell, "compressions", "logit_mse", method="global", size=size)
        for cell in cells
    )


def side_of(mean: float, error: float, count: int) -> int:
    """1 where Student's interval of a mean of so many is above zero, -1 where it is below, else 0."""
    if count < 2 or abs(mean) <= float(stdtrit(count - 1, (1 + SURE) / 2)) * error:
        return 0
    return 1 if mean > 0 else -1


def gradients(row: Row) -> int:
    """∇_θ f_c(x) that kernel regression from the points takes, those by which they were chosen or made included.

    Points that were chosen by their gradients have these already.
    """
    own = row["count"] * CLASSES * CLASSES
    chosen = row["stage"] in BY_GRADIENTS
    return int(row["stage gradients"] + (0 if chosen else own))
