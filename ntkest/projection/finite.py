"""Features that are not finite, by the examples that have them."""

from __future__ import annotations

from typing import Any

from ..linearization import Array, NonFiniteError, is_concrete, numbers

SHOWN = 8


def check_features(xp: Any, features: Array, first: int = 0) -> None:
    """Refuse NaN and infinity in features (n, …) of examples from number `first` on, or in those (dim,) of one.

    Raises
    ------
    NonFiniteError
    """
    if is_concrete(xp.all(xp.isfinite(features))) and not bool(xp.all(xp.isfinite(features))):
        rows = xp.reshape(features, (features.shape[0] if len(features.shape) > 1 else 1, -1))
        sound = numbers(xp.astype(xp.all(xp.isfinite(rows), axis=1), xp.int32))
        bad = [first + n for n, finite in enumerate(sound) if not finite]
        raise NonFiniteError(
            f"features of examples {', '.join(map(str, bad[:SHOWN]))}{', …' if len(bad) > SHOWN else ''} are NaN or "
            f"infinite, as their gradients are, if these are not too large for {features.dtype}; look at the model's "
            "derivatives there, or leave them out"
        )
