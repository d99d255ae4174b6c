"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from .linearization import InvalidValueError


def byte_count(memory: int | str) -> int:
    """A byte count from a number or from text like "2GB" or "512 MiB"."""
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    found = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", memory, re.IGNORECASE)
        if isinstance(memory, str)
        else None
    )
    if found is None or float(found[1]) <= 0:
        raise InvalidValueError(f"memory= takes a positive number of bytes or text like '2GB', not {memory!r}")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " "))


def size_text(count: float) -> str:
    """A byte count as text, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
