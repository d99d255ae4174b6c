"""Ridge regression with the kernel of each class by itself."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ..linearization import Array, InvalidValueError, ShapeError, scalar_dtype
from ..predict.factors import cholesky
from ..predict.systems import check_beside, checked_ridge
from .features import check_features, largest, of_class


@dataclass(frozen=True)
class ClassRidge:
    """One linear function of the features for each class; made by `class_ridge`."""

    weights: Array
    """w (O, k): f_c(x) = φ_c(x)·w_c."""
    ridge: float
    """λ, relative to the mean diagonal of each K̂_c."""
    form: str
    """"dual" or "primal"."""
    rank: int | None
    """r, for the predictor of rank r."""

    def predict(self, features: Array) -> Array:
        """Outputs (n, O) for features (n, O, k); n·O·k multiplications."""
        xp: ModuleType = check_features(features)
        check_beside(features, self.weights, "features")
        if tuple(features.shape[1:]) != tuple(self.weights.shape):
            raise ShapeError(f"features have shape {('n', *self.weights.shape)}, not {tuple(features.shape)}")
        return xp.sum(features * self.weights, axis=2)


def class_ridge(
    features: Array, targets: Array, ridge: float = 1e-4, form: str = "auto", rank: int | None = None
) -> ClassRidge:
    """Fit f_c = φ_c·w_c with w_c = Φ_cᵀ(K_c + λI)⁻¹y_c."""
    xp = check_features(features)
    check_beside(targets, features, "targets")
    if form not in ("auto", "dual", "primal"):
        raise InvalidValueError(f"form= takes 'auto', 'dual' or 'primal', not {form!r}")
    if tuple(targets.shape) != tuple(features.shape[:2]):
        raise ShapeError(f"targets have shape {tuple(features.shape[:2])}, not {tuple(targets.shape)}")
    relative = checked_ridge(ridge)
    s, _, k = features.shape
    kind = ("dual" if s <= k else "primal") if form == "auto" else form
    found = []
    for c in range(features.shape[1]):
        phi, y = of_class(xp, features, c), xp.astype(targets[:, c, None], of_class(xp, features[:1, :, :1], c).dtype)
        size = xp.sum(phi * phi) / s
        if largest(xp, features[:, c : c + 1, :]) == 0:
            found.append(xp.zeros((k,), dtype=phi.dtype))
            continue
        scaled = phi / size**0.5
        if rank is not None:
            left, sizes, right = xp.linalg.svd(scaled, full_matrices=False)
            sizes = sizes[:rank]
            w = right[:rank, :].T @ ((sizes / (sizes**2 + relative))[:, None] * (left[:, :rank].T @ y))
        elif kind == "dual":
            w = scaled.T @ cholesky(xp, scaled @ scaled.T, relative).solve(y)
        else:
            w = cholesky(xp, scaled.T @ scaled, relative).solve(scaled.T @ y)
        found.append(w[:, 0] / size**0.5)
    return ClassRidge(xp.astype(xp.stack(found), scalar_dtype(xp, features)), relative, kind, rank)
