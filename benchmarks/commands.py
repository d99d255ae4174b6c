"""The command that made a file of results, as it is written into it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command(benchmark: str, given: Sequence[str], *, without: Sequence[str] = ("--folder",)) -> str:
    """With the arguments that change what is measured: `without` names options, of one value, that do not."""
    kept, rest = [], iter(given)
    for argument in rest:
        if argument in without:
            next(rest)
        else:
            kept.append(argument)
    return shlex.join(["python", "-m", "benchmarks", benchmark, *kept])
