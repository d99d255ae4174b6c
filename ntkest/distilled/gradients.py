"""The gradient stage by name: from features to a `Compression`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError
from .compression import Compression, checked_size, chosen
from .local_global import global_eigenvectors, local_global
from .points.selection import CHOICES, select

SELECTIONS = ("uniform", *CHOICES)
COMPRESSIONS = ("local-global", "global", "none", *SELECTIONS)


def compressed(
    compression: Any,
    features: Array,
    size: int | None,
    *,
    variance: float | None,
    coverage_threshold: float | None,
    clusters: Any,
    seed: int,
) -> tuple[str, Compression]:
    """Its name, and the compression of features (m, O, k).

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    count = int(features.shape[0])
    if isinstance(compression, Compression):
        return "given", _fitting(compression, count, size)
    if callable(compression):
        name = getattr(compression, "__name__", type(compression).__name__)
        return name, _fitting(compression(features), count, size)
    if not isinstance(compression, str):
        raise InvalidTypeError(
            f"compression= takes a name, a Compression or a function of the features, not {type(compression).__name__}"
        )
    if compression not in COMPRESSIONS:
        raise InvalidValueError(f"compression= takes one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    if compression == "local-global":
        found = local_global(
            features,
            size,
            variance=variance,
            coverage_threshold=coverage_threshold,
            clusters=clusters,
            seed=seed,
        )
        return compression, found
    if compression == "none":
        return compression, _fitting(chosen(count, np.arange(count)), count, size)
    if size is None:
        raise InvalidValueError(f"compression={compression!r} needs size=, how many gradients to keep")
    size = checked_size(size, count)
    if compression == "global":
        return compression, global_eigenvectors(features, size)
    return compression, chosen(count, select(features, size, np.zeros(count), compression, seed))


def _fitting(compression: Any, count: int, size: int | None) -> Compression:
    """A compression that was handed in, refused if it is of other points."""
    if not isinstance(compression, Compression):
        raise InvalidTypeError(f"compression= is to return a Compression, not {type(compression).__name__}")
    if compression.vectors.shape[0] != count:
        raise InvalidValueError(f"the compression is of {compression.vectors.shape[0]} points, and there are {count}")
    if size is not None:
        raise InvalidValueError("size= goes with compressions that can be of any size; this one has its own")
    return compression
