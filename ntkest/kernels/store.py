"""A kernel on disk: a zarr store whose chunks are tiles, each finished for good or not there.

::

    K.zarr/zarr.json, c/…           the array, or with `by` a group of arrays, as any zarr reader has it
    K.zarr/.ntkest/kernel.json      of what it is the kernel, and in what tiles
    K.zarr/.ntkest/done/i.j         tile (i, j), and its mirror image, are finished: checksums, and a few sums

A tile is written to a file of another name, renamed, and forced to the disk; then its mark is, in the same way. So a
mark that is there vouches for its tile, whatever happened, and a tile without one is made again. All files but those
in the making are the same bytes in the end, however often the work was interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..linearization import InvalidTypeError, MissingPackageError, StoreError
from .posing import FORMAT
from .tiles import Place, Plan

OWN = ".ntkest"
"""The folder beside the zarr data, which zarr does not look into."""


class Store:
    """An opened store."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, about
        self.names: tuple[str, ...] = tuple(about["names"])
        self.plan = Plan(tuple(about["shape"]), about["symmetric"], about["tile"], about["most"], 1)
        folders = [path / name for name in self.names] or [path]
        self._arrays = [_zarr().open_array(str(folder), mode="r+") for folder in folders]
        self._folders = folders

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.path)

    def arrays(self) -> list[Any]:
        """The kernels, as zarr arrays to be read."""
        return [_zarr().open_array(str(folder), mode="r") for folder in self._folders]

    def finished(self, place: Place) -> bool:
        """Whether a tile is there for good."""
        return self._mark(place).exists()

    def write(self, place: Place, tiles: Sequence[np.ndarray]) -> None:
        """Put a tile of each kernel, and its mirror image, and mark it as finished.

        Raises
        ------
        StoreError
            The disk is full, or refuses for another reason. What is finished stays so.
        """
        with _storage(self):
            for array, tile in zip(self._arrays, tiles, strict=True):
                side = array.chunks[0]
                for (i, j), part in self.plan.laid(place, tile):
                    _put(array, (i * side, j * side), part)
            sums: dict[str, Any] = {
                "crc32": [[_checksum(chunk) for chunk in chunks] for chunks in self._chunks(place)],
                "trace": [float(np.trace(tile, dtype=np.float64)) if self._diagonal(place) else 0.0 for tile in tiles],
                "square": [_square(tile) * len(self.plan.images(place)) for tile in tiles],
            }
            for chunks in self._chunks(place):
                for chunk in chunks:
                    _force(chunk)
            _write(self._mark(place), json.dumps(sums).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time computes this kernel. The system gives the lock back when that dies.

        Raises
        ------
        StoreError
        """
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        handle = os.open(self.path / OWN, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{self.place} is being written by another process; wait for it") from error
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(handle)

    def check(self) -> None:
        """Compare every finished tile with its checksum; and `sweep`.

        Raises
        ------
        StoreError
        """
        for place in self.plan.places():
            if self.finished(place):
                wanted = self.sums(place)["crc32"]
                found = [[_checksum(chunk) for chunk in chunks] for chunks in self._chunks(place)]
                if found != wanted:
                    raise StoreError(
                        f"tile {place} of {self.place} is not what was written; the store is damaged, and force=True "
                        "begins it anew"
                    )
        self.sweep()

    def sweep(self) -> None:
        """Clear away what processes that were killed left in the making."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def sums(self, place: Place) -> dict[str, Any]:
        """What the mark of a finished tile says."""
        try:
            found: dict[str, Any] = json.loads(self._mark(place).read_bytes())
            return {name: found[name] for name in ("crc32", "trace", "square")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the mark of tile {place} in {self.place} cannot be read ({error}); the store is damaged, and "
                "force=True begins it anew"
            ) from error

    def moments(self) -> list[tuple[float, float]]:
        """Trace (of symmetric kernels) and squared Frobenius norm of each kernel, from all marks."""
        marks = [self.sums(place) for place in self.plan.places()]
        return [
            (sum(mark["trace"][n] for mark in marks), sum(mark["square"][n] for mark in marks))
            for n in range(len(self._arrays))
        ]

    def _mark(self, place: Place) -> Path:
        return self.path / OWN / "done" / f"{place[0]}.{place[1]}"

    def _diagonal(self, place: Place) -> bool:
        return self.plan.symmetric and place[0] == place[1]

    def _chunks(self, place: Place) -> list[list[Path]]:
        """The files of a tile and its mirror image, for each kernel."""
        return [[folder / "c" / str(i) / str(j) for i, j in self.plan.images(place)] for folder in self._folders]


def create(path: Path, about: Mapping[str, Any], dtype: np.dtype[Any], each: int, force: bool) -> Store:
    """A store for the kernel that `about` describes, with nothing finished; it appears whole or not at all.

    Raises
    ------
    StoreError
        Something is in the way and `force` is not given, or it is no kernel of ours.
    """
    zarr = _zarr()
    replaced = path.exists() or path.is_symlink()
    if replaced and not (force and (path / OWN / "kernel.json").is_file()):
        advice = "give force=True to begin anew" if (path / OWN).is_dir() else "it is no kernel of ntkest; move it away"
        raise StoreError(f"{path} exists; {advice}")
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {path}: there is no folder {path.parent}")
    names = about["names"]
    shape, side = [count * each for count in about["shape"]], about["tile"] * each
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        if names:
            zarr.create_group(store=str(temporary))
        for folder in [temporary / name for name in names] or [temporary]:
            zarr.create_array(
                store=str(folder),
                shape=shape,
                chunks=(side, side),
                dtype=dtype,
                fill_value=np.nan,  # what is not finished is no number
                compressors=None,
                filters=None,
            )
        (temporary / OWN / "done").mkdir(parents=True)
        _write(temporary / OWN / "kernel.json", json.dumps(about, indent=1).encode())
        temporary.chmod(0o755)
        if replaced:
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.rename(temporary, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store(path, about)


def opened(path: Path) -> Store:
    """A store that was begun.

    Raises
    ------
    StoreError
        It is no store of this version's kernels.
    """
    _zarr()
    try:
        about = json.loads((path / OWN / "kernel.json").read_bytes())
        if about["format"] != FORMAT:
            raise StoreError(f"{path} has the format {about['format']!r}; this version writes {FORMAT!r}")
        return Store(path, about)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read as a kernel of ntkest: {error}") from error


def as_path(out: Any) -> Path:
    """``out=`` as a path; a relative one would mean another folder on another worker."""
    if not isinstance(out, str | os.PathLike):
        raise InvalidTypeError(f"out= takes the path of a zarr store, not {type(out).__name__}")
    return Path(out).absolute()


def exists(path: Path) -> bool:
    """Whether there is a store that was begun."""
    return (path / OWN / "kernel.json").is_file()


@contextmanager
def _storage(store: Store) -> Iterator[None]:
    """What the disk refuses, in words."""
    try:
        yield
    except OSError as error:
        places = store.plan.places()
        done = sum(map(store.finished, places))
        kept = f"{done} of {len(places)} tiles of {store.place} are finished and kept"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left on the disk; {kept}: make room and call again") from error
        raise StoreError(f"cannot write {store.place}: {error.strerror or error}; {kept}") from error


def _put(array: Any, corner: tuple[int, int], tile: np.ndarray) -> None:
    """One chunk, by zarr: written under another name, then renamed."""
    (i, j), (rows, columns) = corner, tile.shape
    array[i : i + rows, j : j + columns] = tile


def _square(tile: np.ndarray) -> float:
    """Its squared Frobenius norm, added in float64 without a copy of the whole."""
    wide = (tile[start : start + 64].astype(np.float64) for start in range(0, len(tile), 64))
    return float(sum(np.vdot(part, part) for part in wide))


def _write(path: Path, content: bytes) -> None:
    """A small file, whole or not at all, and on the disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _force_entry(path.parent)


def _force(path: Path) -> None:
    """A file and its name, from the memory of the system to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    _force_entry(path.parent)
    _force_entry(path.parent.parent)


def _force_entry(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _checksum(path: Path) -> int:
    """CRC-32 of a file, 0 where there is none."""
    try:
        with open(path, "rb") as file:
            found = 0
            while part := file.read(2**22):
                found = zlib.crc32(part, found)
            return found
    except FileNotFoundError:
        return 0


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MissingPackageError('kernels on disk need zarr: python -m pip install "ntkest[scale]"') from error
    return zarr
