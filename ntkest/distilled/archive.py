"""Results on disk: arrays and a header in one .npz, written whole or not at all, and read without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_whole
from ..linearization import InvalidValueError, StoreError

FORMAT = "ntkest-distilled/1"
"""Of files that `write` writes. A number for each change after which old files could be misread."""

HEADER = "header"
"""The entry that holds the header, JSON as text."""

HEADED, NEEDED = ("ridge", "kinds", "about", "ledger"), ("features", "targets", "vectors", "labels")
"""What a header, and a file, has at least."""


def write(path: Any, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], force: bool) -> None:
    """Write to a file beside it, then rename.

    Raises
    ------
    StoreError
        There is a file already and `force` is not given, or it cannot be written.
    """
    place = Path(path)
    if place.exists() and not (force and place.is_file()):
        what = "exists; give force=True to replace it" if place.is_file() else "is not a regular file"
        raise StoreError(f"cannot write {place}: it {what}")
    text = json.dumps({"format": FORMAT, **header}, allow_nan=False)
    buffer = io.BytesIO()
    entries: dict[str, Any] = {HEADER: np.array(text), **arrays}
    np.savez(buffer, **entries)
    try:
        write_whole(place, buffer.getbuffer())
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from error


def read(path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays.

    Raises
    ------
    StoreError
        The file cannot be read, or is damaged.
    InvalidValueError
        It is of another version, or something else.
    """
    try:
        with open(path, "rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as file:
            if HEADER not in file.files:
                raise InvalidValueError(f"{path} is no distilled kernel: it has no header")
            header = json.loads(str(file[HEADER]))
            version = header.get("format") if isinstance(header, dict) else None
            if version != FORMAT:
                raise InvalidValueError(
                    f"{path} is of the format {version!r}, and this version of ntkest reads {FORMAT!r}: distill anew, "
                    "or read it with the version that wrote it"
                )
            lacking = sorted({*HEADED} - {*header}) + sorted({*NEEDED} - {*file.files})
            if lacking:
                raise StoreError(f"{path} is damaged: it lacks {', '.join(lacking)}")
            return header, {name: file[name] for name in file.files if name != HEADER}
    except (InvalidValueError, StoreError):
        raise
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise StoreError(f"{path} is no distilled kernel, or damaged: {' '.join(str(error).split())}") from error
