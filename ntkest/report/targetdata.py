"""``--targets``: arrays from a file or a function, put beside the model's outputs."""

from __future__ import annotations

import csv
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import usercode
from ..linearization import InvalidTypeError, Linearization, beside
from .problems import CommandError

SUFFIXES = (".npy", ".npz", ".csv")


def load(source: str) -> Any:
    """The array of a file (``FILE.npz:NAME`` picks one of several), or what a function returns. No pickle is read."""
    path, name = _split(source)
    if path is not None:
        if not path.is_file():
            raise CommandError(f"--targets: there is no file {path}")
        try:
            return _from_csv(path) if path.suffix == ".csv" else _from_numpy(path, name)
        except (OSError, ValueError, EOFError, KeyError) as error:
            if isinstance(error, CommandError):
                raise
            raise CommandError(f"--targets: cannot read {path}: {' '.join(str(error).split())}") from error
    if ":" in source:
        return usercode.call(source)
    raise CommandError(f"--targets takes a file ({', '.join(SUFFIXES)}), {usercode.FORMS}; not {source!r}")


def place(J: Linearization, targets: Any) -> Any:
    """NumPy targets as an array of J's namespace, on the device of its outputs; anything else as it is.

    Integers and booleans stay integers (32 bits, which every framework has), since they may be labels; real numbers
    take the dtype of the outputs.
    """
    if not isinstance(targets, np.ndarray | np.generic):
        return targets
    host = np.asarray(targets)
    if host.dtype.kind in "biu":
        largest = int(np.max(np.abs(host.astype(np.float64)), initial=0.0))
        return beside(J.xp, host, J.outputs, J.xp.int32 if largest < 2**31 else J.outputs.dtype)
    if host.dtype.kind == "f":
        return beside(J.xp, host, J.outputs)
    raise InvalidTypeError(f"targets must be real numbers or integer labels, not {host.dtype}")


def _split(source: str) -> tuple[Path | None, str]:
    if Path(source).suffix in SUFFIXES:
        return Path(source), ""
    head, _, name = source.rpartition(":")
    return (Path(head), name) if head.endswith(".npz") else (None, "")


def _from_numpy(path: Path, name: str) -> np.ndarray:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if name and name not in loaded.files:
            raise CommandError(f"--targets: {path} has no array {name!r}; it has {', '.join(loaded.files)}")
        if not name and len(loaded.files) != 1:
            raise CommandError(
                f"--targets: {path} holds {', '.join(loaded.files) or 'nothing'}; name one as {path}:NAME"
            )
        return np.asarray(loaded[name or loaded.files[0]])


def _from_csv(path: Path) -> np.ndarray:
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
        raise CommandError(f"--targets: {path} holds no numbers")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
