"""Which parameters to differentiate: names, globs or a predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from .errors import InvalidTypeError, InvalidValueError

Selection = str | Iterable[str] | Callable[[str], bool] | None


def select(names: Sequence[str], wanted: Selection) -> tuple[str, ...]:
    """Names out of `names`, in their order, that `wanted` asks for.

    `wanted` is a name or glob (``"*.lora_A"``), several of them, or a predicate on the name. A pattern also
    selects everything below it: ``"head"`` means ``"head.weight"`` and ``"head.bias"``.
    """
    if wanted is None:
        return tuple(names)
    if callable(wanted):
        chosen = tuple(name for name in names if wanted(name))
        if not chosen:
            raise InvalidValueError(f"params= selects none of the {len(names)} parameters: {_few(names)}")
        return chosen
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    if not patterns:
        raise InvalidValueError("params= is empty; give names, globs or a predicate, or leave it out for all")
    found: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise InvalidTypeError(f"params= takes names, globs or a predicate, not {type(pattern).__name__}")
        hits = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not hits:
            near = get_close_matches(pattern, names, 3, 0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {_few(names)}"
            raise InvalidValueError(f"params={pattern!r} matches no parameter; {hint}")
        found.update(hits)
    return tuple(name for name in names if name in found)


def _few(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, …" if len(names) > most else shown
