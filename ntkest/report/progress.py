"""A progress bar on standard error, if that is a terminal; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

Report = Callable[[int, int], None]
"""Takes what is done and what is expected in all."""

Stages = Callable[[str], Any]
"""Opens a stage by its name: a context that gives a `Report`."""


def silent(done: int, expected: int) -> None:
    """Report nothing."""


@contextmanager
def _no_stage(name: str) -> Iterator[Report]:
    yield silent


@contextmanager
def stages() -> Iterator[Stages]:
    """A bar a stage, gone when the work is done."""
    if not sys.stderr.isatty():
        yield _no_stage
    elif find_spec("rich") is None:
        yield _line
    else:
        with _bars() as opened:
            yield opened


@contextmanager
def _line(name: str) -> Iterator[Report]:
    def report(done: int, expected: int) -> None:
        sys.stderr.write(f"\r{name}: {done} of about {expected} \x1b[K")
        sys.stderr.flush()

    try:
        yield report
    finally:
        sys.stderr.write("\r\x1b[K")


@contextmanager
def _bars() -> Iterator[Stages]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)

    @contextmanager
    def stage(name: str) -> Iterator[Report]:
        task = progress.add_task(name, total=None)
        progress.start()  # not before there is a task: without one, each refresh would leave an empty line behind

        def report(done: int, expected: int) -> None:
            progress.update(task, completed=done, total=expected)

        yield report
        completed = progress.tasks[task].completed or 1
        progress.update(task, completed=completed, total=completed)

    try:
        yield stage
    finally:
        progress.stop()
