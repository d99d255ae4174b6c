"""From keywords to a random matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..linearization import InvalidTypeError, InvalidValueError
from ..probes import check_seed
from .matrices import Matrix, Normals, Signs
from .sparse import Sparse

KINDS: dict[str, Callable[[int, int], Matrix]] = {"rademacher": Signs, "gaussian": Normals, "sjlt": Sparse}


def random_matrix(dim: Any, kind: Any, seed: Any, size: int) -> Matrix:
    """Q (P, dim) for `size` parameters.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
        raise InvalidTypeError(f"dim= takes a positive integer, not {dim!r}")
    if dim < 1:
        raise InvalidValueError(f"dim= takes a positive integer, not {dim}")
    if dim > size:
        raise InvalidValueError(
            f"dim={dim} is above the {size} parameters: features would be larger than gradients; give fewer"
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidValueError(f"kind= takes {', '.join(map(repr, KINDS))}, not {kind!r}")
    return KINDS[kind](check_seed(seed), int(dim))
