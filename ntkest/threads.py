"""Random numbers by all cores at once: NumPy lets go of the interpreter while it draws and looks up."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

Range = tuple[int, int]
"""From the first to before the last."""

LEAST = 2**18
"""Numbers that a thread should have to make: less is sooner done than shared."""


def shared(make: Callable[[Range], None], rows: Range, each: int) -> None:
    """``make`` for parts of some rows, of `each` numbers a row."""
    start, stop = rows
    parts = min(threads(), (stop - start) * each // LEAST)
    if parts < 2:
        make(rows)
        return
    ends = [start + (stop - start) * i // parts for i in range(parts + 1)]
    for _ in _pool(os.getpid()).map(make, pairwise(ends)):
        pass


@cache
def threads() -> int:
    """As many as there are cores for this process, or as OMP_NUM_THREADS says."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores


@cache
def _pool(process: int) -> Any:
    """A pool of this process: a fork has none of its parent's threads."""
    from concurrent.futures import ThreadPoolExecutor  # imported where it is needed, like all of its kind

    return ThreadPoolExecutor(threads(), thread_name_prefix="ntkest")
