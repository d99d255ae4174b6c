"""The page of the experiment of widths, and its figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .report import _table

ANCHORS = {
    64: (0.61, 0.58),
    128: (0.42, 0.37),
    256: (0.22, 0.21),
    512: (0.13, 0.12),
    1024: (0.083, 0.072),
    2048: (0.045, 0.043),
}
"""Errors of pNTK and of the trace kernel that an earlier, independent program found with seeds of its own."""

AGREED = 0.08
NAMES = {"pntk": "pNTK", "trace": "trace kernel"}
COLOURS = {"pntk": "#0072B2", "trace": "#E69F00"}
MEASURES = {
    "error": "relative Frobenius error",
    "first": "… of the first layer alone",
    "second": "… of the second layer alone",
    "largest": "largest eigenvalue off by",
    "condition": "condition number off by",
    "prediction": "predictions differ by",
}
LAYERS = {"first": 0, "second": 1}
"""Errors of the kernel of one layer; the last layer's is k ⊗ I."""


def average(found: dict[str, Any], kernel: str, measure: str) -> dict[int, float]:
    """By width, the mean over seeds; of ratios, that of their distance from 1."""
    values: dict[int, list[float]] = {}
    for cell in found["cells"]:
        layer = LAYERS.get(measure)
        value = cell[kernel][measure] if layer is None else cell[kernel]["layers"][layer]
        values.setdefault(cell["width"], []).append(abs(value - 1) if measure in ("largest", "condition") else value)
    return {width: math.fsum(some) / len(some) for width, some in values.items()}


def slope(by_width: dict[int, float]) -> float:
    """Of a straight line through log value against log width, by least squares."""
    points = [(math.log(width), math.log(value)) for width, value in by_width.items()]
    x, y = (math.fsum(side) / len(points) for side in zip(*points, strict=True))
    return math.fsum((a - x) * (b - y) for a, b in points) / math.fsum((a - x) ** 2 for a, _ in points)


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    parts = [
        "# Width: pNTK and the trace kernel against the full NTK",
        f"`{found['command']}`, {names}. Raw numbers: [width.json](width.json). Do not edit.",
        "MLP 784-n-n-10 without biases, He's initialisation, N = 48 points on a sphere, float64; mean of "
        f"{found['seeds']} seeds. A kernel k between examples stands for k ⊗ I. *Error*: ‖k ⊗ I - K‖_F / ‖K‖_F. "
        "*Eigenvalue* and *condition number*: the distance of their ratio, of k to K, from 1. *Predictions*: those of "
        "kernel regression without a ridge at 16 other points, ‖f_k - f_K‖_F / ‖f_K‖_F, for random classes. "
        "*Slope*: of log value against log n. The theory has -1/2 at initialisation ([Mohamadi, Bae and "
        "Sutherland](https://arxiv.org/abs/2206.12543)).",
        "The slope of the whole is not that of the theory, for layers' shares change with n: beside that of the first "
        "layer, the traces of the kernels of the second and of the last grow as n / 784, and the last one's is k ⊗ I "
        "exactly. So the error falls faster while n passes the number of inputs. The kernels of the first and of the "
        "second layer alone, where no shares change, are nearer to -1/2, a little above it at these widths.",
        "![What is off, against width](width.svg)",
    ]
    widths = sorted({cell["width"] for cell in found["cells"]})
    for number, (kernel, name) in enumerate(NAMES.items()):
        rows = []
        for measure, text in MEASURES.items():
            values = average(found, kernel, measure)
            rows.append([text, *(f"{values[n]:.3f}" for n in widths), f"{slope(values):.2f}"])
            if measure == "error":
                rows.append(["… by an earlier program", *(_anchor(values, n, number) for n in widths), ""])
        parts += [f"## {name[0].upper() + name[1:] if kernel != 'pntk' else name}"]
        parts += [_table(["", *(f"n = {n}" for n in widths), "slope"], rows)]
    parts.append(f"The earlier program drew seeds of its own; ✗ where the two are further apart than {AGREED}.")
    return "\n\n".join(parts) + "\n"


def _anchor(values: dict[int, float], width: int, number: int) -> str:
    if width not in ANCHORS:
        return ""
    wanted = ANCHORS[width][number]
    return f"{wanted:.3f}" + ("" if abs(values[width] - wanted) <= AGREED else " ✗")


def draw(found: dict[str, Any], file: Path) -> None:
    """Write the figure as SVG: a panel a measure, with a line of slope -1/2."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "width", "svg.fonttype": "path", "font.size": 9}):
        figure, axes = plt.subplots(2, 3, figsize=(9, 5.4), layout="constrained")
        for ax, (measure, text) in zip(axes.flat, MEASURES.items(), strict=True):
            for kernel, name in NAMES.items():
                values = average(found, kernel, measure)
                label = f"{name}, slope {slope(values):.2f}"
                ax.loglog(list(values), list(values.values()), "o-", ms=3.5, color=COLOURS[kernel], label=label)
            widths = [min(values), max(values)]
            start = max(values.values())
            line = [start, start * (widths[1] / widths[0]) ** -0.5]
            ax.loglog(widths, line, "--", color="#888888", lw=1, label="slope -1/2")
            ax.set(title=text, xlabel="width n")
            ax.title.set_fontsize(9)
            ax.legend(fontsize=7, frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
