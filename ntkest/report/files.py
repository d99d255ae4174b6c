"""Files that the command line writes: whole or not at all, and never over another one unless asked to."""

from __future__ import annotations

from pathlib import Path

from ..atomic import write_whole
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
    """Write a file that `check` has no objection to.

    Raises
    ------
    CommandError
    """
    check(path, force)
    try:
        write_whole(Path(path), content)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from error
