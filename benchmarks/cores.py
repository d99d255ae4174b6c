"""Which cores the processes of a benchmark may use."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def available() -> list[int]:
    """The cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """What this thread starts meanwhile keeps to these cores, if any are named."""
    before = available()
    if not cores:
        yield
        return
    os.sched_setaffinity(0, cores)  # of the calling thread; its children inherit it
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
