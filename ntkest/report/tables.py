"""What a command prints: facts, tables and notes, by rich on a terminal that has it and as plain text elsewhere."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from ..estimate import Estimate

WIDTH = 80
"""Columns of plain text."""


@dataclass(frozen=True)
class Facts:
    """Labels, each with a line of text."""

    title: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A name and some cells a row; a row of one cell heads a group."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


Section = Facts | Table | Note


def show(sections: Sequence[Section]) -> None:
    """Print to standard output, with a blank line after each section."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        _show_rich(sections)
    else:
        print("\n".join(line.rstrip() for section in sections for line in [*_plain(section), ""]))


def with_error(value: float, error: float) -> str:
    """``value ± error`` with two digits of the error, or five digits of the value if the error is only rounding."""
    if not math.isfinite(error):
        return f"{value:,.5g} ± ∞"
    size = max(abs(value), error)
    if size == 0 or error <= 1e-8 * abs(value):
        return _number(value, 0 if value == 0 else 4 - _exponent(value))
    digits = 1 - _exponent(error)
    fine = _at_least_two(value, digits)
    if 1e-4 <= size < 1e7:
        return f"{_fixed(value, fine)} ± {_fixed(error, digits)}"
    power = _exponent(size)
    return f"({value / 10.0**power:.{fine + power}f} ± {error / 10.0**power:.{digits + power}f})e{power:+03d}"


def cell(e: Estimate) -> str:
    """An estimate with half the width of its 95 % interval."""
    return with_error(float(e), e.half_width)


def ends(e: Estimate) -> str:
    """The ends of the 95 % interval of an estimate, with two digits of its half-width."""
    low, high = e.interval(0.95)
    half = e.half_width
    if not math.isfinite(half) or half <= 1e-8 * abs(float(e)):
        return f"{low:,.5g} … {high:,.5g}"
    digits = 1 - _exponent(half)
    return " … ".join(_number(end, _at_least_two(end, digits)) for end in (low, high))


def percent(share: float) -> str:
    """A share as text."""
    return f"{100 * share:.3g} %"


def _at_least_two(x: float, digits: int) -> int:
    """`digits` after the point, or more where less than two digits of `x` would be left."""
    return digits if x == 0 else max(digits, 1 - _exponent(x))


def _exponent(x: float) -> int:
    return math.floor(math.log10(abs(x)))


def _number(x: float, digits: int) -> str:
    """`x` with so many digits after the point (negative: before it), in plain notation where that is readable."""
    if x != 0 and not 1e-4 <= abs(x) < 1e7:
        return f"{x:.{max(0, digits + _exponent(x))}e}"
    return _fixed(x, digits)


def _fixed(x: float, digits: int) -> str:
    return f"{round(x, digits):,.{max(0, digits)}f}"


def _show_rich(sections: Sequence[Section]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(highlight=False)
    for section in sections:
        if isinstance(section, Note):
            console.print(Text(section.text, style="dim"))
        elif isinstance(section, Facts):
            console.print(Text(section.title, style="bold"))
            grid = Grid.grid(padding=(0, 2, 0, 0))
            grid.add_column(style="cyan", no_wrap=True)
            grid.add_column()
            for label, text in section.facts:
                grid.add_row(f"  {label}", Text(text))
            console.print(grid)
        else:
            grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
            for index, name in enumerate(section.header):
                grid.add_column(name, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
            for index, row in enumerate(section.rows):
                if len(row) == 1 and index:
                    grid.add_row()
                grid.add_row(*(Text(text) for text in row), style="bold cyan" if len(row) == 1 else None)
            console.print(grid)
        console.print()


def _plain(section: Section) -> list[str]:
    if isinstance(section, Note):
        return textwrap.wrap(section.text, WIDTH)
    if isinstance(section, Facts):
        wide = max(len(label) for label, _ in section.facts)
        lines = [section.title]
        for label, text in section.facts:
            first, *more = textwrap.wrap(text, max(20, WIDTH - wide - 4)) or [""]
            lines += [f"  {label.ljust(wide)}  {first}", *(" " * (wide + 4) + line for line in more)]
        return lines
    rows = [section.header, *section.rows]
    widths = [max(len(row[c]) for row in rows if len(row) > c) for c in range(len(section.header))]
    lines = []
    for index, row in enumerate(rows):
        lines += [""] if len(row) == 1 and index > 1 else []
        lines += ["  ".join((str.rjust if c else str.ljust)(t, widths[c]) for c, t in enumerate(row))]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
