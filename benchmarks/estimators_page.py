"""Markdown of the contest of estimators from its raw JSON, and from nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .contest import QUANTITIES
from .estimators_hard import hard_cases

OURS = "ntkest"
ROUNDING = 1e-12
"""Relative errors below this count as this: the value was found, and what is left is rounding."""

DRAWS = 1000
"""Resamplings of the seeds."""

NEAR, NEAR_FEW, FEW, SMALL, SMALL_GOAL = 1.5, 2.0, 30, 1e-4, 2e-4
"""Goals of "auto": within NEAR of the best of ours, NEAR_FEW under FEW passes; where that is at most SMALL, below
SMALL_GOAL."""


@dataclass(frozen=True)
class Side:
    """The methods of one side in one place: absolute relative errors (methods, seeds), infinite where a run failed."""

    names: list[str]
    errors: np.ndarray

    @staticmethod
    def of(cells: Sequence[dict[str, Any]], named: Callable[[dict[str, Any]], str]) -> Side | None:
        if not cells:
            return None
        errors = [[np.inf if e is None else max(abs(e), ROUNDING) for e in cell["errors"]] for cell in cells]
        return Side([named(cell) for cell in cells], np.asarray(errors))

    @property
    def medians(self) -> np.ndarray:
        return np.median(self.errors, axis=1)

    @property
    def best(self) -> int:
        return int(np.argmin(self.medians))

    def resampled(self, draw: np.random.Generator) -> np.ndarray:
        """Medians (DRAWS, methods) over seeds drawn again; methods share the seeds, as they do in the runs."""
        seeds = draw.integers(self.errors.shape[1], size=(DRAWS, self.errors.shape[1]))
        return np.median(self.errors[:, seeds], axis=2).T


@dataclass(frozen=True)
class Place:
    """A quantity of an operator at a budget, and who did how well there."""

    operator: str
    budget: int
    quantity: str
    held_out: bool
    ours: Side
    theirs: Side | None
    handed: Side | None = None
    """Theirs that were handed J instead of K."""

    @functools.cached_property
    def drawn(self) -> np.ndarray:
        """Medians of ours over seeds drawn again."""
        return self.ours.resampled(np.random.default_rng(0))

    @functools.cached_property
    def ratio(self) -> tuple[float, float, float]:
        """Best of ours over best of theirs: as measured, and the 5 % and 95 % points over resampled seeds."""
        return self.over(self.theirs)

    def over(self, other: Side | None) -> tuple[float, float, float]:
        """The same over another side."""
        assert other is not None
        theirs = other.resampled(np.random.default_rng(1))
        with np.errstate(invalid="ignore"):  # where both sides failed
            low, high = np.quantile(np.min(self.drawn, axis=1) / np.min(theirs, axis=1), [0.05, 0.95])
            return float(np.min(self.ours.medians) / np.min(other.medians)), float(low), float(high)

    @property
    def auto(self) -> float | None:
        """The median error of "auto"."""
        return float(self.ours.medians[self.ours.names.index("auto")]) if "auto" in self.ours.names else None

    @property
    def auto_ratio(self) -> float:
        """Of "auto" over the best of ours."""
        assert self.auto is not None
        return self.auto / float(np.min(self.ours.medians))

    @functools.cached_property
    def auto_surely_off(self) -> bool:
        """Whether "auto" is off its goal in 95 % of the resamplings of the seeds, too."""
        auto, best = self.drawn[:, self.ours.names.index("auto")], np.min(self.drawn, axis=1)
        off = np.where(best <= SMALL, auto >= SMALL_GOAL, auto > self.near * best)
        return bool(np.mean(off) >= 0.95)

    @property
    def near(self) -> float:
        """How near "auto" should come."""
        return NEAR_FEW if self.budget < FEW else NEAR

    @property
    def auto_good(self) -> bool:
        """Whether "auto" reaches its goal as measured."""
        assert self.auto is not None
        if float(np.min(self.ours.medians)) <= SMALL:
            return self.auto < SMALL_GOAL
        return self.auto_ratio <= self.near


def markdown(raw: dict[str, Any]) -> str:
    """The page."""
    places = list(_places(raw))
    parts = ["# Estimators at equal passes", _about(raw), "## In short", _verdict(places), *_again(raw)]
    for held_out, title, text in (
        (False, "Spectra for tuning, and trained networks", "Methods may have been tuned on these."),
        (True, "Held-out spectra", "No method, and no constant of `auto`, was tuned on these."),
    ):
        group = [place for place in places if place.held_out is held_out]
        if group:
            parts += [f"## {title}", text]
        for quantity in QUANTITIES:
            some = [place for place in group if place.quantity == quantity]
            if some:
                parts += [f"### {_title(quantity)}: {title.lower()}", _contest(some)]
    parts += ["## Seconds", _seconds(raw)]
    parts += ["## Failures", *hard_cases(raw)]
    return "\n\n".join(parts) + "\n"


def beyond_the_noise(raw: dict[str, Any]) -> list[Place]:
    """Where ours are behind, or "auto" off its goal, by more than the noise of the seeds."""
    return [place for place in _places(raw) if _behind(place) or _off(place)]


def _behind(place: Place) -> bool:
    return place.theirs is not None and place.ratio[1] > 1


def _off(place: Place) -> bool:
    return place.auto is not None and not place.auto_good and place.auto_surely_off


def _places(raw: dict[str, Any]) -> Iterable[Place]:
    cells = [cell for cell in raw["cells"] if cell.get("errors")]
    for name, facts in raw["operators"].items():
        for quantity in QUANTITIES:
            for budget in sorted({cell["budget"] for cell in cells}):
                here = [c for c in cells if (c["operator"], c["quantity"], c["budget"]) == (name, quantity, budget)]
                ours = Side.of([c for c in here if c["library"] == OURS], lambda c: c["method"])
                if ours is not None:
                    theirs = [
                        Side.of(
                            [c for c in here if c["library"] != OURS and c.get("given", "K") == given],
                            lambda c: f"{c['library']} {c['method']}",
                        )
                        for given in ("K", "J")
                    ]
                    yield Place(name, budget, quantity, facts["held_out"], ours, *theirs)


def _about(raw: dict[str, Any]) -> str:
    machine, operators = raw["machine"], raw["operators"]
    networks = [name for name in operators if name.startswith("digits")]
    shapes = ", ".join(f"{name} {' × '.join(map(str, operators[name]['shape']))}" for name in networks)
    return (
        f"`{raw['command']}` on {machine['processor']} (family/model {machine['family']}, {machine['cores']} cores"
        + "".join(f"; some cells earlier on {m['family']}" for m in raw.get("earlier_machines", ()))
        + "), "
        "a thread a process, float64; "
        + ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
        + ". All numbers are in the JSON file beside this page, from which `python -m benchmarks table FILE.json` "
        "makes it.\n\n"
        f"Operators are K = J Jᵀ with {raw['size']} outputs: explicit J with the spectrum that the name says, between "
        "dense random orthogonal bases; and Jacobians of networks trained on scikit-learn's digits"
        + (
            f" ({shapes}), taken as matrices: that outputs come from separate examples is told to nobody"
            if shapes
            else ""
        )
        + ". A method gets a budget of AD passes, takes as many samples as that pays for, and runs with "
        f"{raw['seeds']} seeds. Our methods see J and Jᵀ; peers see K, and a product with K counts two passes. All "
        "passes are counted where they are made, not as reported. Numbers are relative errors, the median over seeds "
        "and, in brackets, the 90th percentile; a run that failed counts as infinitely wrong. Ratio: the best median "
        "of ours over the best of theirs, with the range that holds 90 % of the ratios when the seeds are drawn again "
        f"({DRAWS} times). Errors below {ROUNDING:g} count as that."
    )


def _verdict(places: list[Place]) -> str:
    rows = []
    for held_out in (False, True):
        for quantity in QUANTITIES:
            group = [p for p in places if p.held_out is held_out and p.quantity == quantity]
            met = [p.ratio for p in group if p.theirs is not None]
            auto = [p for p in group if p.auto is not None]
            if group:
                against = [str(len(met)), str(sum(r[0] <= 1 for r in met)), str(sum(r[1] <= 1 for r in met))]
                rows.append(
                    [
                        _title(quantity) + (", held out" if held_out else ""),
                        *(against if met else ["–"] * 3),
                        f"{sum(p.auto_good for p in auto)} of {len(auto)}",
                        str(sum(p.auto_good or not p.auto_surely_off for p in auto)),
                        f"{max((p.auto_ratio for p in auto if np.min(p.ours.medians) > SMALL), default=1):.2f}",
                    ]
                )
    head = [
        "",
        "places",
        "ours ≤ theirs",
        "or within the noise",
        "`auto` at its goal",
        "or within the noise",
        "its worst ratio",
    ]
    return "\n\n".join(
        [
            f"A place is an operator and a budget. The goal of `auto`: at most {NEAR} times the best of ours where "
            f"that is above {SMALL:g} ({NEAR_FEW:g} times under {FEW} passes), and an error below {SMALL_GOAL:g} "
            f"elsewhere; the worst ratio is that where the best is above {SMALL:g}.",
            table(head, rows),
            "Behind beyond the noise: " + _listed(places, _behind, lambda p: p.ratio[0]),
            "`auto` off its goal beyond the noise: " + _listed(places, _off, lambda p: p.auto_ratio),
            *_handed(places),
        ]
    )


def _again(raw: dict[str, Any]) -> Iterable[str]:
    """Places beyond the noise, measured once more."""
    if "again" in raw:
        seeds = len(raw["again"][0]["errors"])
        yield (
            f"These places with {seeds} seeds that were not used before (`{raw['again_command']}`), as of this many "
            "places that are even some lie beyond the noise of few seeds:"
        )
        yield _contest(list(_places({**raw, "cells": raw["again"]})))


def _listed(places: list[Place], chosen: Callable[[Place], Any], number: Callable[[Place], float]) -> str:
    told = [
        f"{p.operator}, {_title(p.quantity).lower()}, {p.budget} ({_ratio(number(p))})" for p in places if chosen(p)
    ]
    return ("; ".join(told) or "nowhere") + "."


def _handed(places: list[Place]) -> Iterable[str]:
    """How ours stand against peers in the hands of a user who gives them J instead of K."""
    some = [place for place in places if place.handed is not None]
    if some:
        names = sorted({name for place in some for name in place.handed.names})
        ratios = [place.over(place.handed) for place in some]
        yield (
            f"Not among theirs above: {', '.join(names)}, as a user can hand a factor of K to an estimate of squared "
            "norms, at one pass a sample, and get the trace. The best of ours is at or below that in "
            f"{sum(r[0] <= 1 for r in ratios)} of {len(ratios)} places, or within the noise in "
            f"{sum(r[1] <= 1 for r in ratios)}; the median ratio is {_ratio(float(np.median([r[0] for r in ratios])))}."
        )


def _contest(places: list[Place]) -> str:
    rows = []
    for place in places:
        row = [place.operator, str(place.budget), *_best(place.ours)]
        if place.theirs is None:
            row += ["–"] * 3
        else:
            ratio, low, high = place.ratio
            row += [*_best(place.theirs), f"{_ratio(ratio)} [{low:.2g}, {high:.2g}]" + (" ✗" if low > 1 else "")]
        if place.auto is None:
            row += ["–"] * 2
        else:
            row += [_error(place.auto), f"{_ratio(place.auto_ratio)}" + ("" if place.auto_good else " ✗")]
        rows.append(row)
    head = ["", "passes", "best of ours", "error", "best of theirs", "error", "ratio", "`auto`", "over best of ours"]
    if all(place.theirs is None for place in places):
        head, rows = head[:4] + head[7:], [row[:4] + row[7:] for row in rows]
    return table(head, rows)


def _best(side: Side) -> list[str]:
    row = side.errors[side.best]
    return [side.names[side.best], f"{_error(np.median(row))} ({_error(np.quantile(row, 0.9, method='higher'))})"]


def _error(value: float) -> str:
    if not np.isfinite(value):
        return "failed"
    return "=" if value <= ROUNDING else f"{value:.1e}".replace("e-0", "e-")


def _ratio(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _seconds(raw: dict[str, Any]) -> str:
    """Median over operators of the median seconds of a call, by method and budget."""
    cells = [cell for cell in raw["cells"] if cell.get("seconds") is not None]
    budgets = sorted({cell["budget"] for cell in cells})
    rows = []
    for key in dict.fromkeys((c["library"], c["method"], c["quantity"]) for c in cells):
        mine = [c for c in cells if (c["library"], c["method"], c["quantity"]) == key]
        times = [[c["seconds"] for c in mine if c["budget"] == budget] for budget in budgets]
        first = max(c["first_seconds"] for c in mine)
        library, method, quantity = key
        rows.append(
            [f"{library} {method}", _title(quantity).lower()]
            + [f"{1e3 * np.median(t):.3g}" if t else "–" for t in times]
            + [f"{1e3 * first:.3g}"]
        )
    return (
        "Milliseconds of a call on a thread, the median over seeds and operators, by budget; other processes ran on "
        "the other cores. The last column is the slowest first call, which compiles where the library compiles. What "
        "is compared here is the work beside the passes: the passes themselves are products with explicit matrices, "
        "where one with K, two passes of a network, costs as much as one with J, so that at equal passes peers make "
        "half the multiplications; and NumPy, XLA and torch each bring a matrix product of their own.\n\n"
        + table(["", "", *map(str, budgets), "first"], rows)
    )


def _title(quantity: str) -> str:
    return quantity.replace("_", " ").capitalize().replace("frobenius", "Frobenius")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])
