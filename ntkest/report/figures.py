"""``--plot``: every quantity with its 95 % interval, of the whole network and of its parts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ..estimate import Estimate
from ..summary import TITLES, Summary
from .problems import CommandError

FORMATS = (".png", ".svg", ".pdf")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Blue, vermilion, green, purple of Okabe and Ito, told apart with any colour vision."""

MARKERS = "osD^"


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
    columns = min(2 if len(names) <= 4 else 3, len(names))
    lines = -(-len(names) // columns)
    height = lines * (1.0 + 0.24 * len(rows) * (1 + 0.5 * (len(summaries) - 1))) + 0.6
    figure = Figure(figsize=(4.0 * columns, min(height, 100.0)), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, name in zip(panels, names, strict=False):
        for index, (label, summary) in enumerate(summaries.items()):
            if name in summary:
                _series(panel, summary[name], rows, index, len(summaries), label)
        panel.set_xlabel(TITLES.get(name, name.replace("_", " ")))
        panel.set_xlim(left=0)
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=150)
    return buffer.getvalue()


def _rows(summary: Summary) -> list[str]:
    return ["whole network", *next(iter(summary.values())).parts]


def _series(panel: object, whole: Estimate, rows: list[str], index: int, count: int, label: str) -> None:
    """Dots with bars from end to end of the interval, beside those of other summaries."""
    shift = 0.24 * (index - (count - 1) / 2)
    estimates = [whole, *whole.parts.values()]
    values = [float(e) for e in estimates]
    ends = [e.interval(0.95) for e in estimates]
    bars = [[v - low for v, (low, _) in zip(values, ends, strict=True)]]
    bars += [[high - v for v, (_, high) in zip(values, ends, strict=True)]]
    panel.errorbar(  # type: ignore[attr-defined]
        values,
        [row + shift for row in range(len(rows))],
        xerr=bars,
        fmt=MARKERS[index % 4],
        markersize=5,
        capsize=3,
        color=COLOURS[index % 4],
        label=label,
    )
