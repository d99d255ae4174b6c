"""``--targets`` and options like it: arrays from a file or a function, put beside the model's outputs."""

from __future__ import annotations

import csv
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from .. import usercode
from ..linearization import Array, InvalidTypeError, beside
from .problems import CommandError

SUFFIXES = (".npy", ".npz", ".csv")


def load(source: str, option: str = "--targets") -> Any:
    """The array of a file (``FILE.npz:NAME`` picks one of several), or what a function returns. No pickle is read."""
    path, name = _split(source)
    if path is not None:
        if not path.is_file():
            raise CommandError(f"{option}: there is no file {path}")
        try:
            return _from_csv(path, option) if path.suffix == ".csv" else _from_numpy(path, name, option)
        except (OSError, ValueError, EOFError, KeyError) as error:
            if isinstance(error, CommandError):
                raise
            raise CommandError(f"{option}: cannot read {path}: {' '.join(str(error).split())}") from error
    if ":" in source:
        return usercode.call(source)
    raise CommandError(f"{option} takes a file ({', '.join(SUFFIXES)}), {usercode.FORMS}; not {source!r}")


def place(like: Array, targets: Any) -> Any:
    """NumPy arrays as arrays of the namespace of `like`, on its device; anything else as it is.

    Integers and booleans stay integers (32 bits, which every framework has), since they may be labels; real numbers
    take the dtype of `like`.
    """
    if not isinstance(targets, np.ndarray | np.generic):
        return targets
    xp: ModuleType = array_api_compat.array_namespace(like)
    host = np.asarray(targets)
    if host.dtype.kind in "biu":
        largest = int(np.max(np.abs(host.astype(np.float64)), initial=0.0))
        return beside(xp, host, like, xp.int32 if largest < 2**31 else like.dtype)
    if host.dtype.kind == "f":
        return beside(xp, host, like)
    raise InvalidTypeError(f"targets must be real numbers or integer labels, not {host.dtype}")


def _split(source: str) -> tuple[Path | None, str]:
    if Path(source).suffix in SUFFIXES:
        return Path(source), ""
    head, _, name = source.rpartition(":")
    return (Path(head), name) if head.endswith(".npz") else (None, "")


def _from_numpy(path: Path, name: str, option: str) -> np.ndarray:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if name and name not in loaded.files:
            raise CommandError(f"{option}: {path} has no array {name!r}; it has {', '.join(loaded.files)}")
        if not name and len(loaded.files) != 1:
            raise CommandError(
                f"{option}: {path} holds {', '.join(loaded.files) or 'nothing'}; name one as {path}:NAME"
            )
        return np.asarray(loaded[name or loaded.files[0]])


def _from_csv(path: Path, option: str) -> np.ndarray:
    """One row a line, integers if all are; a first line of names is skipped."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), [])
    read = partial(
        np.loadtxt, path, delimiter=",", encoding="utf-8-sig", skiprows=0 if all(map(_is_number, first)) else 1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty file: refused below
        try:
            found: np.ndarray = read(dtype=np.int64)
        except ValueError:
            found = read(dtype=np.float64)
    if found.size == 0:
        raise CommandError(f"{option}: {path} holds no numbers")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
