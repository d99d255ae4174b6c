"""The figures of the benchmark of distillation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .distilled_averages import average, cells_of, networks_of, with_points

Row = dict[str, Any]

COLOURS = {
    "uniform": "#999999",
    "kmeans": "#56B4E9",
    "farthest": "#009E73",
    "leverage": "#F0E442",
    "rpcholesky": "#CC79A7",
    "global": "#000000",
    "local-global": "#D55E00",
    "… no gaps": "#E69F00",
    "… by labels": "#0072B2",
    "all points": "#0072B2",
}
"""From the palette of Okabe and Ito."""

MEASURES = {"fidelity": "1 - fidelity", "accuracy": "accuracy", "logit_mse": "squared error of logits"}


def draw(found: Row, folder: Path) -> None:
    """All three."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "distilled", "svg.fonttype": "path", "font.size": 9}):
        for name, panels in (("", _by_size), ("-ranks", _by_rank), ("-points", _by_stage)):
            figure = panels(plt, found)
            figure.savefig(folder / f"distilled{name}.svg", metadata={"Date": None})
            plt.close(figure)


def _grid(plt: Any, found: Row, columns: int, width: float) -> tuple[Any, Any]:
    """A row of axes for each network."""
    rows = len(networks_of(found))
    return plt.subplots(rows, columns, figsize=(width, 2.7 * rows), squeeze=False, layout="constrained")


def _finish(figure: Any, axes: Any, names: int) -> None:
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(names, 5), frameon=False, fontsize=8)


def _shown(value: float, measure: str) -> float:
    """Fidelity by what it lacks, and nothing where it lacks nothing: there is no such place on a logarithmic axis."""
    lacks = 1 - value if measure == "fidelity" else value
    return lacks if lacks > 1e-9 else math.nan


def _by_size(plt: Any, found: Row) -> Any:
    """Measures against s."""
    figure, axes = _grid(plt, found, len(MEASURES), 9)
    methods = [m for m in dict.fromkeys(r["method"] for r in found["cells"][0]["compressions"]) if m in COLOURS]
    for row, network in zip(axes, networks_of(found), strict=True):
        cells = cells_of(found, network)
        for ax, (measure, title) in zip(row, MEASURES.items(), strict=True):
            for method in methods:
                y = [
                    _shown(average(cells, "compressions", measure, method=method, size=s), measure)
                    for s in found["sizes"]
                ]
                style = "--" if method.startswith("…") else "-"
                ax.plot(found["sizes"], y, "o" + style, ms=3, lw=1.2, color=COLOURS[method], label=method)
            ax.set(xscale="log", yscale="linear" if measure == "accuracy" else "log", xlabel="combinations s")
            ax.set_title(f"{network}: {title}", fontsize=9)
            ax.set_xticks(found["sizes"], [str(s) for s in found["sizes"]], minor=False)
            ax.xaxis.set_minor_formatter("")
    _finish(figure, axes, len(methods))
    return figure


def _by_rank(plt: Any, found: Row) -> Any:
    """Measures against r."""
    figure, axes = _grid(plt, found, 2, 7)
    names = list(dict.fromkeys(row["of"] for row in found["cells"][0]["curves"]))
    for row, network in zip(axes, networks_of(found), strict=True):
        cells = cells_of(found, network)
        for ax, measure in zip(row, ("fidelity", "logit_mse"), strict=True):
            for name in names:
                ranks = [r["rank"] for r in cells[0]["curves"] if r["of"] == name]
                y = [_shown(average(cells, "curves", measure, of=name, rank=r), measure) for r in ranks]
                ax.plot(ranks, y, "o-", ms=3, lw=1.2, color=COLOURS[name], label=name)
            ax.set(xscale="log", yscale="log", xlabel="rank r")
            ax.set_title(f"{network}: {MEASURES[measure]}", fontsize=9)
    _finish(figure, axes, len(names))
    return figure


def _by_stage(plt: Any, found: Row) -> Any:
    """Residuals beside those of points at random, and the accuracy of students on logits, against points a class."""
    figure, axes = _grid(plt, found, 2, 7)
    stages = list(dict.fromkeys(row["stage"] for row in found["cells"][0]["points"]))
    colours = {**COLOURS, "wasserstein": "#0072B2", "tangent": "#D55E00", "inducing": "#E69F00"}
    for row, network in zip(axes, networks_of(found), strict=True):
        cells = with_points(found, network)
        for name in stages:
            residuals, base = (
                [average(cells, "points", "held residual", stage=stage, count=n) for n in found["counts"]]
                for stage in (name, "uniform")
            )
            left = [ours / random for ours, random in zip(residuals, base, strict=True)]
            right = [
                average(cells, "students", "accuracy", stage=name, count=n, aims="logits") for n in found["counts"]
            ]
            for ax, y in zip(row, (left, right), strict=True):
                ax.plot(found["counts"], y, "o-", ms=3, lw=1.2, color=colours[name], label=name)
        row[1].axhline(sum(cell["teacher"]["held"] for cell in cells) / len(cells), color="black", lw=0.8)
        for ax, title in zip(row, ("residual / that of uniform", "accuracy of new networks"), strict=True):
            ax.set(xscale="log", xlabel="points a class")
            ax.set_title(f"{network}: {title}", fontsize=9)
            ax.set_xticks(found["counts"], [str(n) for n in found["counts"]], minor=False)
            ax.xaxis.set_minor_formatter("")
    _finish(figure, axes, len(stages))
    return figure
