"""``--plot``: every quantity with its 95 % interval, of the whole network and of its parts; or a distillation."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..distilled.study import Analysis
from ..estimate import Estimate
from ..summary import TITLES, Summary
from .problems import CommandError

FORMATS = (".png", ".svg", ".pdf")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Blue, vermilion, green, purple of Okabe and Ito, told apart with any colour vision."""

MARKERS = "osD^"

MANY = 8
"""Rows from which on all panels stand side by side, so that the parts are named once."""


def check(path: str | None) -> None:
    """Refuse a format that cannot be drawn, before any work is done."""
    if path is None:
        return
    if Path(path).suffix.lower() not in FORMATS:
        raise CommandError(f"--plot takes a file that ends in {', '.join(FORMATS)}, not {path}")
    if find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib, which is not installed; try: python -m pip install matplotlib")


def draw(summaries: Mapping[str, Summary], title: str, path: str) -> bytes:
    """One panel a quantity, one row a part, one colour a summary; in the format of the path's ending."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary))
    rows = _rows(next(iter(summaries.values())))
    most = len(names) if len(rows) > MANY else 2 if len(names) <= 4 else 3
    columns = min(most, len(names))
    lines = -(-len(names) // columns)
    height = lines * (1.0 + 0.24 * len(rows) * (1 + 0.5 * (len(summaries) - 1))) + 0.6
    figure = Figure(figsize=(4.0 * columns, min(height, 100.0)), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, name in zip(panels, names, strict=False):
        lowest = 0.0
        for index, (label, summary) in enumerate(summaries.items()):
            if name in summary:
                lowest = min(lowest, _series(panel, summary[name], rows, index, len(summaries), label))
        panel.set_xlabel(TITLES.get(name, name.replace("_", " ")))
        panel.set_xlim(left=None if lowest < 0 else 0)  # from zero, so that lengths can be compared
        panel.set_yticks(range(len(rows)), rows)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.locator_params(axis="x", nbins=5)
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    figure.suptitle(title, fontsize=11)
    if len(summaries) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(summaries), frameon=False)
    return encoded(figure, path)


def analysis(found: Analysis, title: str, path: str) -> bytes:
    """The analysis of a distillation: spectra, containment, heat map, and errors by dimensions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 7.8), layout="constrained")
    found.plot(figure.subplots(2, 2))
    figure.suptitle(title, fontsize=11)
    return encoded(figure, path)


def encoded(figure: Any, path: str) -> bytes:
    """A figure in the format of the path's ending."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=150)
    return buffer.getvalue()


def _rows(summary: Summary) -> list[str]:
    return ["whole network", *next(iter(summary.values())).parts]


def _series(panel: Any, whole: Estimate, rows: list[str], index: int, count: int, label: str) -> float:
    """Dots with bars from end to end of the interval, beside those of other summaries; returns the lowest end."""
    shift = 0.24 * (index - (count - 1) / 2)
    estimates = [whole, *whole.parts.values()]
    values = [float(e) for e in estimates]
    ends = [e.interval(0.95) for e in estimates]
    bars = [[v - low for v, (low, _) in zip(values, ends, strict=True)]]
    bars += [[high - v if math.isfinite(high) else math.nan for v, (_, high) in zip(values, ends, strict=True)]]
    panel.errorbar(
        values,
        [row + shift for row in range(len(rows))],
        xerr=bars,
        fmt=MARKERS[index % 4],
        markersize=5,
        capsize=3,
        color=COLOURS[index % 4],
        label=label,
    )
    return min(low for low, _ in ends)
