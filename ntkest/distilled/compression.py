"""Gradients made out of gradients: φ̂_c = Φ_cᵀ u and ŷ_c = uᵀ y_c for a few vectors u of weights of examples."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError, beside, numbers, scalar_dtype
from ..predict.systems import check_beside
from .features import check_features


@dataclass(frozen=True)
class Compression:
    """Weights of m examples in each of s synthetic gradients, the same for all classes."""

    vectors: Array
    """u (m, s): beside the features they were made from, or on the host."""
    kinds: tuple[str, ...]
    """Where each column comes from: "local", "gap", "global" or "chosen"."""
    clusters: np.ndarray | None = None
    """(m,): the cluster of each example, where there are clusters."""
    coverage: np.ndarray | None = None
    """(r_g,): how much of each of the first global eigenvectors the local ones contain."""

    @property
    def size(self) -> int:
        """How many there are, s."""
        return len(self.kinds)

    def apply(self, features: Array, targets: Array) -> tuple[Array, Array]:
        """Synthetic gradients and their targets.

        Parameters
        ----------
        features : array (m, O, k)
        targets : array (m, O)
            The network's outputs on the same examples.

        Returns
        -------
        (array (s, O, k), array (s, O)), beside the features
            For s·m·O·k multiplications.

        Raises
        ------
        DeviceMismatchError, InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
        """
        xp: ModuleType = check_features(features)
        check_beside(targets, features, "targets")
        count, outputs = int(self.vectors.shape[0]), int(features.shape[1])
        if features.shape[0] != count or tuple(targets.shape) != (count, outputs):
            raise ShapeError(
                f"a compression of {count} examples takes features ({count}, O, k) and targets ({count}, O), not "
                f"{tuple(features.shape)} and {tuple(targets.shape)}"
            )
        dtype = scalar_dtype(xp, features)
        if isinstance(self.vectors, np.ndarray):
            weights = beside(xp, self.vectors.T, features, dtype)
        else:
            check_beside(features, self.vectors, "features")
            weights = xp.astype(self.vectors.T, dtype, copy=False)
        made = weights @ xp.reshape(xp.astype(features, dtype, copy=False), (count, -1))
        return xp.reshape(made, (self.size, outputs, -1)), weights @ xp.astype(targets, dtype, copy=False)


def chosen(count: int, indices: Any) -> Compression:
    """The compression that keeps some examples as they are: columns of the identity, on the host.

    Parameters
    ----------
    count : int
        m.
    indices : integers (s,)

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    found = numbers(indices) if array_api_compat.is_array_api_obj(indices) else np.asarray(indices)
    if found.ndim != 1 or found.dtype.kind not in "iuf" or not np.array_equal(found, np.round(found)):
        raise InvalidTypeError("the chosen examples are given by their indices, a list or an array of integers")
    found = found.astype(int)
    if len(found) == 0 or found.min() < 0 or found.max() >= count or len(np.unique(found)) < len(found):
        raise InvalidValueError(f"the chosen examples are some of 0 … {count - 1}, each once")
    return Compression(np.eye(count)[:, found], ("chosen",) * len(found))


def checked_size(size: Any, count: int) -> int:
    """How many gradients to make out of `count`."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise InvalidTypeError(f"size= takes a number of gradients, not {size!r}")
    if not 1 <= size <= count:
        raise InvalidValueError(f"size={size}: out of {count} examples 1 to {count} gradients can be made")
    return int(size)
