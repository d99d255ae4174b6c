"""``--json``: a document with the numbers and all that is needed to have them again."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from .problems import CommandError
from .run import Run

SCHEMA = "ntkest-report/1"


def encode(run: Run) -> bytes:
    """The document of a run, as strict JSON: what is not finite becomes null."""
    document = {
        "schema": SCHEMA,
        "ntkest": __version__,
        "command": run.command,
        "target": run.target,
        "options": dict(run.options),
        "interrupted": run.interrupted,
        "results": run.results,
        "seconds": run.seconds,
        "host": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "versions": {name: _version(name) for name in ("numpy", "scipy", "array-api-compat")},
        },
    }
    return (json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """`value` in what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def read(path: str) -> dict[str, Any]:
    """A document that `encode` wrote.

    Raises
    ------
    CommandError
        If the file cannot be read, or is something else.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        given = document.get("schema") if isinstance(document, dict) else None
        raise CommandError(
            f"{path} was not written by this version's --json (its schema is {given!r}, {SCHEMA!r} is needed)"
        )
    kinds = {"command": str, "target": str | None, "options": dict, "results": dict}
    for key, kind in kinds.items():
        if not isinstance(document.get(key), kind):
            raise CommandError(f"{path} has no usable {key!r}; it was changed after ntkest wrote it")
    return document
