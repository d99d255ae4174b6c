"""The map of sides as a figure: a panel a series of networks, coloured by the winner, with the choice of auto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .sides_cells import ACCEPTED, EVEN, FAMILIES, Place, places

COLOURS = {"reverse": "#0072B2", "forward": "#E69F00", "leave-one-out": "#009E73", "Hutch++": "#CC79A7"}
"""From the palette of Okabe and Ito, which the colour-blind can tell apart; letters say the same."""

LETTERS = {"reverse": "R", "forward": "F", "leave-one-out": "L", "Hutch++": "H", "exact": "E"}
GREY = "#E4E4E4"
FAR = 2.0
"""Factors from here on have the full colour."""


def draw(found: dict[str, Any], quantity: str, file: Path) -> None:
    """Write the figure of a quantity as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "sides", "svg.fonttype": "path", "font.size": 9}):
        rows = _arranged(found["panels"])
        height = 0.33 * len(found["budgets"]) + 0.75
        figure = plt.figure(figsize=(5.4, height * len(rows) + 0.55), layout="constrained")
        grid = figure.add_gridspec(len(rows), 1)
        for number, titles in enumerate(rows):
            widths = [len(found["panels"][title]) for title in titles]
            inner = grid[number].subgridspec(1, len(titles), width_ratios=widths)
            for column, title in enumerate(titles):
                _panel(figure.add_subplot(inner[column]), found, quantity, title, column == 0)
        _legend(figure)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _arranged(panels: dict[str, list[str]]) -> list[list[str]]:
    """Wide panels a row each, the narrow ones together in the last."""
    most = max(map(len, panels.values()))
    wide = [[title] for title, names in panels.items() if len(names) > 0.6 * most]
    narrow = [title for title, names in panels.items() if len(names) <= 0.6 * most]
    return wide + ([narrow] if narrow else [])


def _panel(ax: Any, found: dict[str, Any], quantity: str, title: str, labelled: bool) -> None:
    names, budgets = found["panels"][title], found["budgets"]
    where = places(found, quantity)
    for x, name in enumerate(names):
        for y, passes in enumerate(budgets):
            _cell(ax, x, y, where[name, passes])
    shapes = [found["networks"][name]["shape"] for name in names]
    ratios = [f"{M / P:.2g}".removeprefix("0") for M, P in shapes]
    kinds = [name.partition(" ")[0] for name in names]
    if len(set(kinds)) > 1:
        ratios = [f"{ratio}\n{kind}" for ratio, kind in zip(ratios, kinds, strict=True)]
    ax.set_xticks(range(len(names)), ratios)
    ax.set_yticks(range(len(budgets)), list(map(str, budgets)) if labelled else [])
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(-0.5, len(budgets) - 0.5), xlabel="M/P")
    if labelled:
        ax.set_ylabel("passes")
    ax.set_title(title, fontsize=9)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _cell(ax: Any, x: int, y: int, place: Place) -> None:
    """The winner's letter on its colour; below it auto's choice where that is another, or far from the best."""
    from matplotlib.patches import Rectangle

    if place.exact:
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=GREY, edgecolor="white"))
        return
    far = place.auto > ACCEPTED
    strength = 0.25 if place.even else 0.6 if place.factor < FAR else 1.0
    box = (x - 0.48, y - 0.48), 0.96, 0.96
    ax.add_patch(Rectangle(*box, facecolor=COLOURS[place.winner], alpha=strength, edgecolor="none"))
    if far:
        ax.add_patch(Rectangle((x - 0.45, y - 0.43), 0.9, 0.86, fill=False, edgecolor="black", linewidth=1.6))
    light = "white" if strength == 1.0 and place.winner == "reverse" else "black"
    chosen = LETTERS[place.auto_family]
    below = f"{chosen} {place.auto:.1f}" if far else chosen
    ax.text(x, y + 0.2, LETTERS[place.winner], ha="center", va="center", color=light, fontweight="bold")
    ax.text(x, y - 0.24, below, ha="center", va="center", color=light, fontsize=7.5)


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=COLOURS[name], label=f"{LETTERS[name]} {name}") for name in FAMILIES]
    patches.append(Patch(facecolor=GREY, label="exact is cheaper"))
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
        title=f"Bold: the winner (pale: by < {EVEN:g}×). Below: auto's choice; framed: > {ACCEPTED:g}× the best",
        title_fontsize=7.5,
    )
