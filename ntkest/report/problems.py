"""What can go wrong on the command line, said in one line."""

from __future__ import annotations

import site
import sys
import traceback
from pathlib import Path

from ..linearization import NTKError

PACKAGE = Path(__file__).resolve().parent.parent
"""Where ntkest itself lies: frames in there are of no use to who wrote the model."""

LONGEST = 600
"""Characters of a message; frameworks sometimes print whole tensors."""


class CommandError(NTKError, ValueError):
    """Something that was asked of the command line cannot be done."""


def described(error: BaseException) -> str:
    """One line for `error`: the message of our own errors; for others also the type and the user's line of code."""
    said = " ".join(str(error).split())
    if len(said) > LONGEST:
        said = said[: LONGEST - 2] + " …"
    if isinstance(error, NTKError):
        return said
    place = culprit(error)
    kind = type(error).__name__
    return (f"{kind}: {said}" if said else kind) + (f" ({place})" if place else "")


def culprit(error: BaseException) -> str:
    """``file.py:line`` of the innermost frame that is neither Python's, nor an installed package's, nor ours."""
    foreign = [Path(p).resolve() for p in (sys.prefix, sys.base_prefix, *site.getsitepackages())] + [PACKAGE]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<"):
            continue
        path = Path(frame.filename).resolve()
        if not any(path.is_relative_to(folder) for folder in foreign) and "site-packages" not in path.parts:
            return f"{path.name}:{frame.lineno}"
    return ""
