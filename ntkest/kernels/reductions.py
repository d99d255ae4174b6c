"""What of an example's O × O block of K is wanted: which cotangents v each example gets, and what becomes of them.

=============  ==========================================  ====================
``outputs=``   cotangents                                  entry
=============  ==========================================  ====================
"full"         the O unit vectors                          v_oᵀ K_nn' v_o', all
"trace"        the O unit vectors                          tr K_nn' / O
"sum"          a vector of ones                            1ᵀ K_nn' 1
"pntk"         ones over √O                                1ᵀ K_nn' 1 / O
an integer     one unit vector                             K_nn'[o, o]
a vector v     v                                           vᵀ K_nn' v
"signs:s"      s vectors of random signs, over √O          mean of vᵀ K_nn' v
=============  ==========================================  ====================

The first is (N·O, N·O), O fastest; the others are (N, N). In expectation over signs the last is the trace kernel.

Reference: Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel",
ICML 2023 (sum of logits, single logits).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import InvalidTypeError, InvalidValueError, numbers

SIGNS = re.compile(r"signs:([1-9]\d*)")


@dataclass(frozen=True)
class Reduction:
    """Cotangents (k, O), on the host, and whether all pairs of them count, or the mean over equal ones."""

    cotangents: np.ndarray
    full: bool


def reduction(outputs: Any, size: int, seed: int = 0) -> Reduction:
    """From ``outputs=`` for examples with `size` outputs each.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if isinstance(outputs, str):
        return _named(outputs, size, seed)
    if outputs is None or isinstance(outputs, bool):
        raise InvalidTypeError(f"outputs= takes {_choices()}, not {outputs!r}")
    if isinstance(outputs, int | np.integer):
        if not -size <= outputs < size:
            raise InvalidValueError(f"outputs={outputs} is none of the {size} outputs of an example")
        return Reduction(np.eye(size)[[int(outputs)]], False)
    try:
        vector = np.asarray(numbers(outputs) if hasattr(outputs, "shape") else outputs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"outputs= takes {_choices()}, not {outputs!r}") from error
    if vector.size != size:
        raise InvalidValueError(f"outputs= has {vector.size} numbers, but an example has {size} outputs")
    if not np.isfinite(vector).all():
        raise InvalidValueError("outputs= holds numbers that are not finite")
    return Reduction(vector.reshape(1, size), False)


def _named(name: str, size: int, seed: int) -> Reduction:
    signs = SIGNS.fullmatch(name)
    if signs:
        draw = np.random.default_rng(seed)
        return Reduction(draw.choice([-1.0, 1.0], (int(signs[1]), size)) / size**0.5, False)
    if name == "sum":
        return Reduction(np.ones((1, size)), False)
    if name == "pntk":
        return Reduction(np.full((1, size), size**-0.5), False)
    if name == "trace":
        return Reduction(np.eye(size), False)
    if name == "full":
        return Reduction(np.eye(size), True)
    raise InvalidValueError(f"outputs= takes {_choices()}, not {name!r}")


def _choices() -> str:
    return "'full', 'trace', 'sum', 'pntk', 'signs:s', the number of an output, or a vector over the outputs"
