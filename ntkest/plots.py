"""Plots of numbers with intervals. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .linearization import MissingBackendError

MANY = 60
"""Past this many values a curve shows more than dots."""


def axes_or_new(ax: Any, rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.0)) -> Any:
    """`ax` if given, else the axes of a new figure."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingBackendError("plots need matplotlib: python -m pip install 'ntkest[app]'") from error
    return plt.subplots(rows, columns, figsize=size, layout="constrained")[1]


def interval_chart(values: Mapping[str, tuple[float, float, float]], title: str, ax: Any = None) -> Any:
    """One dot with a horizontal bar from low to high for each name, the first at the top. Returns the axes."""
    ax = axes_or_new(ax, size=(6.4, 1.2 + 0.32 * len(values)))
    for row, (value, low, high) in enumerate(values.values()):
        ax.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", color="C0", capsize=3)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    ax.set_xlabel(title)
    ax.grid(axis="x", alpha=0.3)
    return ax


def interval_curve(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, labels: Sequence[str], title: str, ax: Any = None
) -> Any:
    """Values in their order: dots with bars from low to high, or a curve in a band where they are many."""
    ax = axes_or_new(ax)
    index = np.arange(len(value))
    if len(value) <= MANY:
        ax.errorbar(index, value, yerr=[value - low, high - value], fmt="o", color="C0", capsize=3)
    else:
        ax.plot(index, value, color="C0")
        ax.fill_between(index, low, high, color="C0", alpha=0.25, linewidth=0)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(title)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.grid(axis="y", alpha=0.3)
    return ax


def heat_map(value: np.ndarray, labels: Sequence[str], title: str, ax: Any = None) -> Any:
    """A matrix in colours, its first axis downwards. Returns the axes."""
    ax = axes_or_new(ax)
    image = ax.imshow(value, aspect="auto", interpolation="nearest", cmap="viridis")
    ax.set_ylabel(labels[0])
    ax.set_xlabel(labels[1])
    ax.figure.colorbar(image, ax=ax, label=title)
    return ax


def square_map(values: Sequence[Sequence[float]], names: Sequence[str], title: str, ax: Any = None) -> Any:
    """A square of values from 0 to 1, each written in its cell. Returns the axes."""
    size = 1.6 + 0.6 * len(names)
    ax = axes_or_new(ax, size=(size + 0.8, size))
    image = ax.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value < 0.6 else "k")
    ax.set_xticks(range(len(names)), list(names), rotation=45, ha="right")
    ax.set_yticks(range(len(names)), list(names))
    ax.figure.colorbar(image, ax=ax, label=title)
    return ax
