"""Files that the command line writes: whole or not at all, and never over another one unless asked to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .problems import CommandError


def check(path: str | None, force: bool) -> None:
    """Refuse a file that could not be written later, before any work is done."""
    if path is None:
        return
    if not Path(path).parent.is_dir():
        raise CommandError(f"cannot write {path}: there is no folder {Path(path).parent}")
    if Path(path).is_dir():
        raise CommandError(f"cannot write {path}: it is a folder")
    if Path(path).exists() and not Path(path).is_file():
        raise CommandError(f"cannot write {path}: it is not a regular file")
    if Path(path).exists() and not force:
        raise CommandError(f"{path} exists; give --force to replace it")


def write(path: str, content: bytes, force: bool) -> None:
    """Write to a temporary file beside `path`, then rename it: nobody ever sees half a file."""
    check(path, force)
    place = Path(path).resolve()  # a link stays a link
    try:
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private
            os.replace(temporary, place)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
