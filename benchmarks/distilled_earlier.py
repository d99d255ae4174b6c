"""The part of the page about distillation that holds figures of an earlier program beside those here."""

from __future__ import annotations

from typing import Any

from .distilled_averages import above, average, cells_of, mean_and_error
from .report import _table

Row = dict[str, Any]

EARLIER = {
    "uniform": (0.45, 0.73, 0.93, 0.97),
    "kmeans": (0.50, 0.90, 0.95, 0.98),
    "farthest": (0.51, 0.85, 0.95, 0.98),
    "global": (0.82, 0.95, 0.98, 0.99),
}
"""Fidelity of the MLP at s = 5, 10, 20, 40 that an earlier, independent program found on a split of its own."""

EARLIER_SIZES, AGREED = (5, 10, 20, 40), 0.1


def agreement(found: Row) -> str:
    """How many figures are met, and whether the order is."""
    far, order, count = _far(found), _reversed(found), len(_earlier_rows(found))
    return (
        f"{count - len(far)} of {count} figures of an earlier program are met within {AGREED}"
        + (f"; not: {', '.join(far)}" if far else "")
        + (f". The order differs: {'; '.join(order)}." if order else ", and the order of methods is the same.")
    )


def _earlier_rows(found: Row) -> list[tuple[str, int, float, float]]:
    """Method, s, ours, and what the earlier program found."""
    cells = cells_of(found, "MLP")
    return [
        (method, size, average(cells, "compressions", "fidelity", method=method, size=size), wanted)
        for method, figures in EARLIER.items()
        for size, wanted in zip(EARLIER_SIZES, figures, strict=True)
        if size in found["sizes"]
    ]


def _reversed(found: Row) -> list[str]:
    """Pairs of methods that are the other way round than in the earlier program."""
    rows, lines = _earlier_rows(found), []
    for size in EARLIER_SIZES:
        here = [(method, ours, wanted) for method, s, ours, wanted in rows if s == size]
        for low, ours_low, wanted_low in here:
            for high, ours_high, wanted_high in here:
                if wanted_low < wanted_high and ours_low > ours_high:
                    mean, error = mean_and_error([above(cell, low, high, size) for cell in cells_of(found, "MLP")])
                    lines.append(
                        f"{low} {ours_low:.3f} over {high} {ours_high:.3f} at s = {size}, by {mean:.3f} ± {error:.3f}"
                    )
    return lines


def _far(found: Row) -> list[str]:
    """Figures that are further apart than agreed."""
    return [
        f"{method} at s = {size} ({ours:.2f} and {wanted:.2f})"
        for method, size, ours, wanted in _earlier_rows(found)
        if abs(ours - wanted) > AGREED
    ]


def beside_earlier(found: Row) -> str:
    """The table."""
    rows = []
    for method in EARLIER:
        own = [(size, ours, wanted) for name, size, ours, wanted in _earlier_rows(found) if name == method]
        cells = [
            f"{ours:.3f} / {wanted:.2f}" + ("" if abs(ours - wanted) <= AGREED else " ✗") for _, ours, wanted in own
        ]
        rows.append([method, *cells])
    sizes = [size for size in EARLIER_SIZES if size in found["sizes"]]
    order = _reversed(found)
    said = "The order of the four is the same at every s." if not order else f"In another order: {'; '.join(order)}."
    return (
        "Fidelity of the MLP here / by an earlier program with a split, a training and draws of its own, from 500 real "
        f"images with k = 2,048; ✗ where they are further apart than {AGREED}.\n\n"
        + _table(["s", *map(str, sizes)], rows)
        + f"\n\n{said}"
    )
