"""The largest eigenvalues of K, with residuals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..linearization import (
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonFiniteError,
    UnsupportedModeError,
    beside,
    leading,
)
from ..probes import check_seed
from ..progress import progress_of
from ..quantities import setting
from ..sampling import Plan
from ..tangents import join
from .krylov import block_size, krylov
from .sides import OUTPUTS, PARAMETERS, ROUNDING, Operator
from .whole import Found, exact, exact_passes

METHODS = ("auto", "exact", "krylov")

STEPS = 4
"""Block steps that a Krylov space is expected to take; if all of J costs no more, all of J is taken."""


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of K from the largest on. A sequence of floats."""

    values: np.ndarray
    """(k,) float64 on the host: squares of singular values of J, which float32 may not hold."""
    residuals: np.ndarray
    """(k,): ‖Ku - λu‖ with rounding; K has an eigenvalue at most this far from λ."""
    converged: np.ndarray
    """(k,): whether the residual is at most `tol` times the value, or is rounding."""
    passes: int
    """AD passes spent, those for vectors included."""
    n_jvp: int
    """JVPs among them."""
    n_vjp: int
    """VJPs among them."""
    method: str
    """"exact" or "krylov"."""
    tol: float
    """The relative tolerance that was asked for."""
    vectors: Any = field(default=None, repr=False)
    """With ``vectors="outputs"`` (k, M), with "parameters" blocks (k, P_l): what J.vjp and J.jvp take. Rows of
    eigenvalues that are zero to rounding are zero where J would have to be divided by."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Seed, dtype, device and versions."""

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values.tolist())

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __str__(self) -> str:
        shown = ", ".join(f"{value:.5g}" for value in self.values[:6]) + (", …" if len(self) > 6 else "")
        state = f"{int(self.converged.sum())} of {len(self)} converged"
        return f"eigenvalues {shown}  ({state}; {self.method}, {self.passes} passes)"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "quantity": "eigenvalues",
            "values": self.values.tolist(),
            "residuals": self.residuals.tolist(),
            "converged": self.converged.tolist(),
            "passes": self.passes,
            "n_jvp": self.n_jvp,
            "n_vjp": self.n_vjp,
            "method": self.method,
            "tol": self.tol,
            **self.about,
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the eigenvalues over their index, with residuals as bars; needs matplotlib. Returns the axes."""
        from ..plots import axes_or_new

        ax = axes_or_new(ax)
        ax.errorbar(np.arange(1, len(self) + 1), self.values, yerr=self.residuals, fmt="o", color="C0", capsize=3)
        if np.all(self.values > 0):
            ax.set_yscale("log")
        ax.set_xlabel("index")
        ax.set_ylabel("eigenvalue of K")
        ax.grid(alpha=0.3)
        return ax


def eigenvalues(
    J: Linearization,
    k: int,
    *,
    tol: float = 1e-4,
    method: str = "auto",
    max_passes: int = 2000,
    vectors: bool | str = False,
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
    progress: Any = False,
) -> Eigenvalues:
    """The k largest eigenvalues of K = J Jᵀ, and eigenvectors if asked.

    Parameters
    ----------
    J : Linearization
    k : int
        How many, at most M. Beyond the rank they are zero.
    tol : float
        Go on until each residual ‖Ku - λu‖ is at most tol · λ, or rounding. The error of an eigenvalue is at most its
        residual, and most often of the order of tol² · λ.
    method : "auto", "exact" or "krylov"
        "exact" takes all rows or columns of J; "auto" does where that costs no more than a few steps of "krylov".
    max_passes : int
        Bound on AD passes; what was found until then is returned, with `converged` to tell.
    vectors : bool, "outputs" or "parameters"
        Also eigenvectors of K, (k, M) (True means these), or of JᵀJ, blocks (k, P_l).
    seed, centered, memory, chunk, progress
        As in `ntkest.quantities`.

    Returns
    -------
    Eigenvalues
        Values in float64 on the host, from the largest on.

    Raises
    ------
    InvalidValueError
        `memory` or `max_passes` do not allow for a block of a few vectors more than k.
    UnsupportedModeError
        J lacks a mode, and all of J is beyond `max_passes`.

    Notes
    -----
    Cost: "exact" min(M, P) passes; "krylov" about 2(k + k/4 + 2) passes a step, and three to ten steps for decaying
    spectra. Vectors on the side that the Krylov space is not on, the larger one, cost k passes more. A block of more
    than k vectors finds eigenvalues of any multiplicity; squares of singular values keep small eigenvalues
    right to ε·√(λ₁λ_i), which Lanczos on K gives to ε·λ₁ only.

    References
    ----------
    Golub, Luk, Overton, ACM TOMS 1981 (block bidiagonalisation); Musco and Musco, "Randomized block Krylov methods for
    stronger and faster approximate singular value decomposition", NeurIPS 2015.
    """
    _check_count(k)
    Plan(max_passes=max_passes)
    _check_tol(tol)
    seed = check_seed(seed)
    if method not in METHODS:
        raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {method!r}")
    side, report = _check_side(vectors), progress_of(progress)
    operator = Operator.of(J, centered, memory, chunk, compact=vectors != PARAMETERS)
    if k > operator.outputs:
        raise InvalidValueError(f"k={k} eigenvalues were asked for, but K has only {operator.outputs}")
    block = block_size(operator, k)
    chosen, whole = choose(operator, method, block, max_passes), exact_passes(operator)
    if chosen == "krylov":
        limit = min(max_passes, whole) if method == "auto" else max_passes
        found = krylov(operator, k, block, tol, limit, seed, report)
        if limit < max_passes and not found.finished and operator.problem.passes + whole <= max_passes:
            chosen = "exact"  # a spectrum too flat for Krylov spaces: what they cost at most doubles the whole
    if chosen == "exact":
        found = exact(operator, k, side is not None)
    rows = None if side is None else _on_side(operator, found, side)
    return _result(operator, found, rows, chosen, tol, seed)


def choose(operator: Operator, method: str, block: int, max_passes: int) -> str:
    """The method that costs less, if it is left open."""
    if method == "krylov":
        operator.check_both("method='krylov'")
    if method != "auto":
        return method
    cost = exact_passes(operator)
    if not operator.both and cost > max_passes:
        raise UnsupportedModeError(
            f"this model has {sorted(operator.linearization.modes)} only, so eigenvalues take all of J: {cost} passes, "
            f"and max_passes={max_passes}"
        )
    cheap = cost <= min(max_passes, STEPS * block * operator.step_passes())
    return "exact" if cheap or not operator.both else "krylov"


def _on_side(operator: Operator, found: Found, side: str) -> Any:
    """The left vectors, or their images over their singular values."""
    k = len(found.sizes)
    if found.rows is None:
        zero = operator.signs(side, 0, 0, k)
        rows = tuple(a * 0 for a in zero)
    elif side == operator.left:
        rows = found.rows
    else:
        good = found.sizes > ROUNDING * operator.eps * found.largest
        inverse = np.where(good, 1 / np.where(good, found.sizes, 1), 0)[: leading(found.rows)]
        images = operator.push(found.rows)
        rows = tuple(a * beside(operator.xp, inverse, a)[:, None] for a in images)
    missing = k - leading(rows)
    if missing:
        rows = join(operator.xp, rows, tuple(a * 0 for a in operator.signs(side, 0, 0, missing)))
    return rows[0] if side == OUTPUTS else rows


def _result(operator: Operator, found: Found, rows: Any, method: str, tol: float, seed: int) -> Eigenvalues:
    noise = ROUNDING * operator.eps * found.largest
    squares = found.sizes**2
    rounding = 2 * noise * found.sizes + noise**2
    converged = (found.residuals <= tol * squares) | (found.residuals <= rounding) | (found.sizes <= noise)
    values, residuals = squares * operator.scale, np.hypot(found.residuals, rounding) * operator.scale
    if not np.all(np.isfinite(values)):
        raise NonFiniteError("an eigenvalue leaves the range of float64; rescale the outputs")
    kernel = operator.problem.kernels[0]
    about = {"seed": seed, **setting(operator.linearization), **({"interrupted": True} if found.interrupted else {})}
    return Eigenvalues(
        values, residuals, converged, kernel.passes, kernel.n_jvp, kernel.n_vjp, method, tol, rows, about
    )


def _check_count(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InvalidTypeError(f"k takes a positive integer, not {k!r}")
    if k < 1:
        raise InvalidValueError(f"k takes a positive integer, not {k}")


def _check_tol(tol: Any) -> None:
    if isinstance(tol, bool) or not isinstance(tol, int | float):
        raise InvalidTypeError(f"tol= takes a positive number, not {tol!r}")
    if not 0 < tol < float("inf"):
        raise InvalidValueError(f"tol= takes a positive number, not {tol}")


def _check_side(vectors: Any) -> str | None:
    if vectors is False or vectors is None:
        return None
    if vectors is True:
        return OUTPUTS
    if vectors not in (OUTPUTS, PARAMETERS):
        raise InvalidValueError(f"vectors= takes True, False, 'outputs' or 'parameters', not {vectors!r}")
    return str(vectors)
