"""How far a long call has come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .linearization import InvalidTypeError


def progress_of(progress: Any, unit: str = "passes") -> Callable[[int, int], None]:
    """``progress=``: False, True for a line on stderr, or a function of what is spent and what is expected in all."""
    if progress is False or progress is None:
        return lambda spent, expected: None
    if callable(progress):
        return lambda spent, expected: progress(spent, expected)
    if progress is not True:
        raise InvalidTypeError(f"progress= takes True, False or a function of (spent, expected), not {progress!r}")

    def line(spent: int, expected: int) -> None:
        end = "\n" if spent >= expected else ""
        sys.stderr.write(f"\rntkest: {spent} of about {expected} {unit}{end}")
        sys.stderr.flush()

    return line
