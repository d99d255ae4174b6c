"""What a command produced: the same for all, so that printing, JSON and plots are written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..distilled.study import Analysis
from ..summary import Summary
from .tables import Section


@dataclass(frozen=True)
class Run:
    """The outcome of a command."""

    command: str
    """"demo", "report", "kernel" or "distill"."""
    target: str | None
    """TARGET as it was given."""
    title: str
    """What the numbers are of, in a line."""
    options: Mapping[str, Any]
    """All that decides the numbers."""
    sections: list[Section]
    """What the terminal shows."""
    results: Mapping[str, Any]
    """The numbers, as plain data."""
    seconds: Mapping[str, float]
    """Time by stage."""
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    """What the plot shows, by label; or ..."""
    analysis: Analysis | None = None
    """... what it shows of a distillation."""
    interrupted: bool = False
    """Whether Ctrl-C ended it early."""
