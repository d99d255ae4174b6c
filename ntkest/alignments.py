"""All pairwise alignments of several kernels from the same probes, as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from .estimate import Estimate
from .inference import Quantity, alignment_of, target_alignment_of
from .linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    beside,
    eps,
    is_concrete,
    is_linearization,
    number,
)
from .quantities import measure
from .targets import check_same_outputs

ROUNDS = 30
"""Alternating projections; how near the result is to the nearest matrix matters less than that it is one of them."""

GRAMS = frozenset({"exact", "reverse", "hutchinson"})
"""Methods whose alignments are cosines between vectors, one a kernel: their matrix is positive semi-definite."""


@dataclass(frozen=True)
class AlignmentMatrix:
    """Alignments of n kernels, and of the targets if there are any, which come last."""

    value: Array
    """(n, n): symmetric, positive semi-definite to rounding, with a diagonal of ones."""
    std_error: Array
    """(n, n): standard errors, zero on the diagonal."""
    names: tuple[str, ...]
    """A name for each row."""
    pairs: Mapping[tuple[int, int], Estimate] = field(repr=False)
    """The estimate of each alignment a < b, as it was before any projection."""
    projected: Array | bool = False
    """Whether estimates had to be moved to make the matrix positive semi-definite."""

    @property
    def passes(self) -> int:
        """AD passes that all alignments together took: they share them."""
        return self._any.passes

    @property
    def n_jvp(self) -> int:
        """JVPs among them."""
        return self._any.n_jvp

    @property
    def n_vjp(self) -> int:
        """VJPs among them."""
        return self._any.n_vjp

    @property
    def method(self) -> str:
        """The estimator."""
        return self._any.method

    @property
    def converged(self) -> bool:
        """Whether every alignment has met the tolerance."""
        return all(e.converged for e in self.pairs.values())

    @property
    def _any(self) -> Estimate:
        return next(iter(self.pairs.values()))

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (n, n) of two-sided intervals, one for each alignment on its own."""
        low, high = np.eye(len(self.names)), np.eye(len(self.names))
        for (a, b), estimate in self.pairs.items():
            low[a, b], high[a, b] = estimate.interval(level)
        upper = np.triu_indices(len(self.names), 1)
        low.T[upper], high.T[upper] = low[upper], high[upper]
        return low, high

    def __str__(self) -> str:
        width = max(9, *(len(name) for name in self.names))
        rows = [" " * width + "".join(f"  {name:>{width}}" for name in self.names)]
        for a, name in enumerate(self.names):
            cells = (f"{number(self.value[a, b]):.4g}" for b in range(len(self.names)))
            rows.append(f"{name:<{width}}" + "".join(f"  {cell:>{width}}" for cell in cells))
        note = ", moved to the nearest positive semi-definite matrix" if self.projected else ""
        return "\n".join([f"alignments ({self.method}, {self.passes} passes{note})", *rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        low, high = self.interval()
        return {
            "names": list(self.names),
            "value": _numbers(self.value),
            "std_error": _numbers(self.std_error),
            "interval_95": [low.tolist(), high.tolist()],
            "passes": self.passes,
            "n_jvp": self.n_jvp,
            "n_vjp": self.n_vjp,
            "method": self.method,
            "why": self._any.why,
            "converged": self.converged,
            "projected": bool(self.projected),
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw a heat map; needs matplotlib. Returns the axes."""
        from .plots import square_map

        return square_map(_numbers(self.value), self.names, "alignment", ax)


def alignment_matrix(
    linearizations: Sequence[Linearization],
    targets: Any = None,
    *,
    names: Sequence[str] | None = None,
    **keywords: Any,
) -> AlignmentMatrix:
    """Alignments of all pairs of kernels on the same outputs, and of each with targets.

    Parameters
    ----------
    linearizations : sequence of Linearization
        With the same outputs: checkpoints, seeds or architectures.
    targets : array or integer labels, optional
        As for `alignment`: one more row, of the matrix yyᵀ.
    names : sequence of str, optional
        One for each linearization; default "kernel 0", "kernel 1", …
    **keywords
        As in `ntkest.quantities`, but not ``by=``; ``rtol`` has to hold for every pair.

    Returns
    -------
    AlignmentMatrix
        Cost: that of the probes alone, m passes a kernel for n kernels and all their pairs, not for each pair anew.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Of fewer than two rows, of what is no linearization, of names that do not fit, or ``by=``.
    ShapeError, DeviceMismatchError, ZeroKernelError
        As `alignment`.

    Notes
    -----
    In reverse mode the alignment of two kernels is the cosine between the vectors (S_ij), i ≠ j, of their probes' Gram
    matrices, so that the matrix is positive semi-definite as it comes. Other methods, and targets, whose products
    with kernels are exact, give a matrix that noise can push out of that cone. Then it is replaced by one near the
    nearest with a unit diagonal (alternating projections, Higham, IMA J. Numer. Anal. 2002), and `projected` says so.
    """
    kernels = tuple(linearizations) if isinstance(linearizations, Sequence) else ()
    rows = len(kernels) + (targets is not None)
    if not kernels or rows < 2:
        raise InvalidValueError(
            f"alignment_matrix takes a list of at least two linearizations, or of one with targets; got {len(kernels)}"
        )
    for other in kernels:
        if not is_linearization(other):
            raise InvalidTypeError(f"a linearization is needed, not {type(other).__name__}; make one with linearize")
        check_same_outputs(kernels[0], other)
    if keywords.get("by") is not None:
        raise InvalidValueError(
            "alignment_matrix has no by=; take parts with alignment(J, other, by=...) for each pair"
        )
    labels = _names(names, len(kernels), targets is not None)
    quantities: dict[tuple[int, int], Quantity] = {
        (a, b): replace(alignment_of(a, b), debias_in=frozenset({"forward"}))
        for a, b in combinations(range(len(kernels)), 2)
    }
    if targets is not None:
        quantities |= {(a, len(kernels)): target_alignment_of(a) for a in range(len(kernels))}
    found = measure(kernels[0], list(quantities.values()), others=kernels[1:], targets=targets, **keywords)
    pairs = dict(zip(quantities, found, strict=True))
    xp = kernels[0].xp
    value, error = (
        _symmetric(xp, rows, {k: getattr(e, name) for k, e in pairs.items()}) for name in ("value", "std_error")
    )
    value = value + beside(xp, np.eye(rows), value)
    projected: Array | bool = False
    if found[0].method not in GRAMS or (targets is not None and found[0].method != "exact"):
        value, projected = _positive(xp, value)
    return AlignmentMatrix(value, error, labels, pairs, projected)


def _positive(xp: ModuleType, value: Array) -> tuple[Array, Array | bool]:
    """A positive semi-definite matrix with unit diagonal near `value`, itself if it is one; and whether it is not."""
    slack = 16.0 * value.shape[0] * eps(xp, value)
    least = xp.min(xp.linalg.eigvalsh(value))
    if is_concrete(least) and number(least) >= -slack:
        return value, False
    ones = beside(xp, np.eye(value.shape[0]), value)
    matrix, correction = value, value * 0.0
    for _ in range(ROUNDS):
        shifted = matrix - correction
        cone = _clipped(xp, shifted)
        correction = cone - shifted
        matrix = cone * (1.0 - ones) + ones
    matrix = _clipped(xp, matrix)
    root = xp.linalg.diagonal(matrix) ** 0.5
    matrix = matrix / root[:, None] / root[None, :] * (1.0 - ones) + ones
    if is_concrete(least):
        return matrix, True
    return xp.where(least < -slack, matrix, value), least < -slack


def _clipped(xp: ModuleType, matrix: Array) -> Array:
    """The nearest positive semi-definite matrix."""
    levels, vectors = xp.linalg.eigh(matrix)
    clipped = (vectors * xp.maximum(levels, levels * 0)[None, :]) @ vectors.T
    return 0.5 * (clipped + clipped.T)


def _symmetric(xp: ModuleType, rows: int, pairs: Mapping[tuple[int, int], Array]) -> Array:
    """(rows, rows) with zeros on the diagonal."""
    zero = next(iter(pairs.values())) * 0
    lines = [
        xp.stack([zero if a == b else pairs[min(a, b), max(a, b)] for b in range(rows)], axis=0) for a in range(rows)
    ]
    return xp.stack(lines, axis=0)


def _names(names: Sequence[str] | None, kernels: int, targets: bool) -> tuple[str, ...]:
    if names is None:
        names = [f"kernel {a}" for a in range(kernels)]
    if isinstance(names, str) or len(names) != kernels or not all(isinstance(name, str) for name in names):
        raise InvalidValueError(f"names= takes one name for each of the {kernels} linearizations, not {names!r}")
    return (*names, "targets") if targets else tuple(names)


def _numbers(matrix: Array) -> list[list[float]]:
    n = matrix.shape[0]
    return [[number(matrix[a, b]) for b in range(n)] for a in range(n)]
