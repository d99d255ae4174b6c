"""Arrays on disk: a zarr store whose chunks are tiles, each finished for good or not there.

::

    K.zarr/zarr.json, c/…           the array, or a group of arrays, as any zarr reader has it
    K.zarr/.ntkest/kernel.json      of what it is the kernel, and in what tiles
    K.zarr/.ntkest/done/i.j         tile (i, j), and its mirror image, are finished: checksums, and a few sums

So it is for kernels; `Kind` says what is different for others.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..linearization import InvalidTypeError, MissingPackageError, StoreError

OWN = ".ntkest"
"""The folder beside the zarr data, which zarr does not look into."""

Place = tuple[int, int]
"""Of a tile: its mark's name."""


class Layout(Protocol):
    """Which tiles there are, and which chunks of the arrays they fill."""

    def arrays(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of each array, and that of its chunks."""
        ...

    def places(self) -> list[Place]:
        """All tiles."""
        ...

    def images(self, place: Place) -> Sequence[tuple[int, ...]]:
        """The chunks that a tile fills."""
        ...

    def laid(self, place: Place, tile: Any) -> Sequence[tuple[tuple[int, ...], Any]]:
        """These, and what is there of it."""
        ...

    def sums(self, place: Place, tiles: Sequence[np.ndarray]) -> Mapping[str, Any]:
        """What its mark tells beside checksums."""
        ...


@dataclass(frozen=True)
class Kind:
    """What is stored."""

    word: str
    format: str
    layout: Callable[[Mapping[str, Any]], Layout]
    """From what is known about it, which is plain data."""
    sums: tuple[str, ...] = ()
    """Names of `Layout.sums`."""

    def file(self, path: Path) -> Path:
        """Where a store says what it is."""
        return path / OWN / f"{self.word}.json"


class Store:
    """An opened store."""

    def __init__(self, path: Path, about: Mapping[str, Any], kind: Kind) -> None:
        self.path, self.about, self.kind = path, about, kind
        self.names: tuple[str, ...] = tuple(about["names"])
        self.layout = kind.layout(about)
        folders = [path / name for name in self.names] or [path]
        self._arrays = [_zarr().open_array(str(folder), mode="r+") for folder in folders]
        self._folders = folders

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.path)

    def arrays(self) -> list[Any]:
        """What is stored, as zarr arrays to be read."""
        return [_zarr().open_array(str(folder), mode="r") for folder in self._folders]

    def finished(self, place: Place) -> bool:
        """Whether a tile is there for good."""
        return self._mark(place).exists()

    def write(self, place: Place, tiles: Sequence[np.ndarray]) -> None:
        """Put a tile of each array and mark it as finished.

        Raises
        ------
        StoreError
            The disk is full, or refuses for another reason. What is finished stays so.
        """
        with _storage(self):
            for array, tile in zip(self._arrays, tiles, strict=True):
                for index, part in self.layout.laid(place, tile):
                    _put(array, tuple(i * side for i, side in zip(index, array.chunks, strict=True)), part)
            sums: dict[str, Any] = {
                "crc32": [[_checksum(chunk) for chunk in chunks] for chunks in self._chunks(place)],
                **self.layout.sums(place, tiles),
            }
            for chunks in self._chunks(place):
                for chunk in chunks:
                    _force(chunk)
            _write(self._mark(place), json.dumps(sums).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time computes what is stored. The system gives the lock back when that dies.

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
        for place in self.layout.places():
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
            return {name: found[name] for name in ("crc32", *self.kind.sums)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the mark of tile {place} in {self.place} cannot be read ({error}); the store is damaged, and "
                "force=True begins it anew"
            ) from error

    def _mark(self, place: Place) -> Path:
        return self.path / OWN / "done" / f"{place[0]}.{place[1]}"

    def _chunks(self, place: Place) -> list[list[Path]]:
        """The files of a tile, for each array."""
        images = self.layout.images(place)
        return [[folder.joinpath("c", *map(str, chunk)) for chunk in images] for folder in self._folders]


def create(path: Path, about: Mapping[str, Any], kind: Kind, force: bool) -> Store:
    """A store for what `about` describes, with nothing finished; it appears whole or not at all.

    Raises
    ------
    StoreError
        Something is in the way and `force` is not given, or it is nothing of this kind.
    """
    zarr = _zarr()
    replaced = path.exists() or path.is_symlink()
    if replaced and not (force and exists(path, kind)):
        other = f"it is no {kind.word} of ntkest; move it away"
        raise StoreError(f"{path} exists; {'give force=True to begin anew' if exists(path, kind) else other}")
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {path}: there is no folder {path.parent}")
    names = about["names"]
    shape, chunks = kind.layout(about).arrays()
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
                chunks=chunks,
                dtype=about["dtype"],
                fill_value=np.nan,  # what is not finished is no number
                compressors=None,
                filters=None,
            )
        (temporary / OWN / "done").mkdir(parents=True)
        _write(kind.file(temporary), json.dumps(about, indent=1).encode())
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
    return Store(path, about, kind)


def opened(path: Path, kind: Kind) -> Store:
    """A store that was begun.

    Raises
    ------
    StoreError
        It is no store of this kind, or of another version.
    """
    _zarr()
    try:
        about = json.loads(kind.file(path).read_bytes())
        if about["format"] != kind.format:
            raise StoreError(f"{path} has the format {about['format']!r}; this version writes {kind.format!r}")
        return Store(path, about, kind)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read as a {kind.word} of ntkest: {error}") from error


def as_path(out: Any) -> Path:
    """``out=`` as a path; a relative one would mean another folder on another worker."""
    if not isinstance(out, str | os.PathLike):
        raise InvalidTypeError(f"out= takes the path of a zarr store, not {type(out).__name__}")
    return Path(out).absolute()


def exists(path: Path, kind: Kind) -> bool:
    """Whether there is a store of this kind that was begun."""
    return kind.file(path).is_file()


def begun(
    path: Path,
    kind: Kind,
    about: Mapping[str, Any],
    mismatch: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None],
) -> Store | None:
    """What was begun at `path`, if it is what `about` describes; None if there is nothing.

    Raises
    ------
    StoreError
        It holds another one, for the reason that `mismatch` finds.
    """
    if not exists(path, kind):
        return None
    found = opened(path, kind)
    reason = mismatch(found.about, about)
    if reason is not None:
        raise StoreError(
            f"{path} holds another {kind.word}: {reason}. Give another path, or force=True to begin this one anew"
        )
    return found


def filled(found: Store, tiles: Iterator[Place], report: Callable[[int, int], None]) -> list[Any]:
    """The arrays, complete, when `tiles` has written what is missing, which it yields the places of."""
    with found.locked():
        found.check()
        places = found.layout.places()
        done = sum(map(found.finished, places))
        report(done, len(places))
        for _ in tiles:
            done += 1
            report(done, len(places))
    return found.arrays()


@contextmanager
def _storage(store: Store) -> Iterator[None]:
    """What the disk refuses, in words."""
    try:
        yield
    except OSError as error:
        places = store.layout.places()
        done = sum(map(store.finished, places))
        kept = f"{done} of {len(places)} tiles of {store.place} are finished and kept"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left on the disk; {kept}: make room and call again") from error
        raise StoreError(f"cannot write {store.place}: {error.strerror or error}; {kept}") from error


def _put(array: Any, corner: tuple[int, ...], tile: np.ndarray) -> None:
    """One chunk, by zarr: written under another name, then renamed."""
    array[tuple(slice(start, start + count) for start, count in zip(corner, tile.shape, strict=True))] = tile


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
        raise MissingPackageError('arrays on disk need zarr: python -m pip install "ntkest[scale]"') from error
    return zarr
