"""An exception in one line, and where in the user's own code it comes from."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from .linearization import NTKError

LONGEST = 600
"""Characters of a message; frameworks sometimes print whole tensors."""


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
    """``file.py:line`` of the innermost frame of the user's own code: not Python's, an installed package's or ours."""
    homes = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    foreign = [Path(home).resolve() for home in homes]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        ours = frame.f_globals.get("__name__", "").startswith("ntkest")
        if not ours and path.is_file() and not any(path.resolve().is_relative_to(folder) for folder in foreign):
            return f"{path.name}:{line}"
    return ""
