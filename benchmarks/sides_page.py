"""The page about the map of sides. All of its numbers, and the words that depend on them, come from the JSON file."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .sides_cells import ACCEPTED, EVEN, FAMILIES, FLOOR, Place, places, sampled
from .sides_figure import LETTERS, draw

RATIOS = (0.0, 1.0, 3.0, 10.0, 30.0, np.inf)
"""Ends of the bins of passes over effective rank."""


def write(found: dict[str, Any], folder: Path) -> None:
    """The page and a figure a quantity."""
    for quantity in found["quantities"]:
        draw(found, quantity, folder / _figure(quantity))
    (folder / "sides.md").write_text(markdown(found), encoding="utf-8")


def _figure(quantity: str) -> str:
    return "sides.svg" if quantity == "trace" else f"sides-{quantity.replace('_', '-')}.svg"


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    seeds = max(found["seeds"])
    fewer = "" if min(found["seeds"]) == seeds else f" ({min(found['seeds'])} at {max(found['budgets'])} passes)"
    lines = [
        "# Which side wins",
        "",
        f"Written by `{found['command']}` ({found['core_seconds']} s of one core, NumPy {found['versions']['numpy']}); "
        "all errors are in [sides.json](sides.json). Do not edit.",
        "",
        "Networks with M outputs and P parameters, M/P from 0.05 to 20, on scikit-learn's digits: the states of tanh "
        "RNNs that read rows of pixels, M = N·T·H, and the logits of MLPs with two hidden layers of ReLUs, M = 10·N. "
        "Jacobians are explicit, so a pass is a product with J or Jᵀ, and both cost one.",
        "",
        f"A cell is a network and a number of AD passes. Its winner is the estimator with the least rms relative error "
        f"over {seeds} seeds{fewer} among {LETTERS['reverse']} `reverse`, "
        f"{LETTERS['forward']} `forward`, {LETTERS['leave-one-out']} leave-one-out (`xnystrace`, `xtrace` or "
        "`xtrace-power`, the "
        f"better one) and {LETTERS['Hutch++']} `hutch++`. Such an rms is itself good to about "
        f"{1 / np.sqrt(2 * seeds):.0%}, so that a lead of less than {EVEN:g}× is called even, and the best of five is "
        f"lucky by about as much. Errors below {FLOOR:g} count as {FLOOR:g}. Where all rows or columns cost no more "
        f"passes, exact is cheaper and nothing is sampled (grey, and – in the tables).",
        "",
        "`auto` here isn't told which outputs belong to one example, so that it has to choose among those above.",
        "",
    ]
    for quantity in found["quantities"]:
        lines += _section(found, quantity)
    if "trace" in found["quantities"]:
        lines += _with_examples(found)
    lines += _networks(found)
    return "\n".join(lines)


def _section(found: dict[str, Any], quantity: str) -> list[str]:
    name = quantity.replace("_", " ")
    return [
        f"## {name.capitalize()}",
        "",
        f"![The winner by M/P and passes, and the choice of auto: {name}]({_figure(quantity)})",
        "",
        "What it shows:",
        "",
        *_wins(found, quantity),
        *_sides(found, quantity),
        *_takeover(found, quantity),
        *_auto(found, quantity),
        *_map(found, quantity),
    ]


# What the map shows ---------------------------------------------------------------------------------------------------


def _wins(found: dict[str, Any], quantity: str) -> list[str]:
    all_ = list(sampled(found, quantity))
    clear = Counter(place.winner for place in all_ if not place.even)
    won = Counter(place.winner for place in all_)
    told = ", ".join(f"{name} {won[name]} ({clear[name]} of them by {EVEN:g}× or more)" for name in FAMILIES)
    return [f"- **Wins**, in {len(all_)} cells where exact is dearer: {told}."]


def _sides(found: dict[str, Any], quantity: str) -> list[str]:
    """One-sided estimators only: whether the side of the smaller dimension has the smaller error."""
    ratios, wide = [], []
    for place in sampled(found, quantity):
        M, P = found["networks"][place.network]["shape"]
        small, large = ("reverse", "forward") if M <= P else ("forward", "reverse")
        ratios.append(place.family(large) / place.family(small))
        if not 1 / 3 < M / P < 3:
            wide.append(ratios[-1])
    if not ratios:
        return []
    line = (
        f"- **Reverse against forward.** The side of the smaller dimension has the smaller error in "
        f"{sum(r > 1 for r in ratios)} of {len(ratios)} cells; the other side's error is {_mean(ratios):.2f} times as "
        f"large in the geometric mean"
    )
    line += f", {_mean(wide):.2f} times where M/P is beyond 1/3 to 3." if wide else "."
    if quantity == "trace":
        exact = [_larger_side(facts) for facts in found["networks"].values()]
        line += (
            f" Without the noise of seeds, by the formulas of the variances, that factor lies between "
            f"{min(exact):.2f} and {max(exact):.2f}, {_mean(exact):.2f} in the mean. A side gains by its diagonal: "
            f"Σ K_ii² ≥ tr²(K)/M is a share of r/M or more of ‖K‖_F², with r the effective rank. That is much only "
            f"where the smaller dimension is not far above r, and exact not far off. Elsewhere the mode "
            f"whose passes are cheaper is the better one."
        )
    return [line]


def _larger_side(facts: dict[str, Any]) -> float:
    """The exact ratio of one-sided errors, that of the larger dimension's side on top."""
    M, P = facts["shape"]
    ratio = facts["reverse / forward"]
    return ratio if M > P else 1 / ratio


def _takeover(found: dict[str, Any], quantity: str) -> list[str]:
    """When sketches beat one-sided probes: by passes, and by passes over effective rank."""
    all_ = list(sampled(found, quantity))
    medians = {
        passes: np.median(gains)
        for passes in found["budgets"]
        if (gains := [place.gain for place in all_ if place.passes == passes])
    }
    over = next((passes for passes, gain in medians.items() if gain > EVEN), None)
    when = f"take over at {over} passes" if over else "do not take over"
    lines = [
        f"- **Sketches** (leave-one-out and Hutch++) {when}, in the median cell and by {EVEN:g}× or more. Against the "
        "better one-sided mode, the share of cells where they are ahead at all, and by what factor (median, range):",
        "",
        "  | passes | cells | ahead | factor |",
        "  | --- | --- | --- | --- |",
    ]
    for passes in found["budgets"]:
        lines += _gains(f"{passes}", [place for place in all_ if place.passes == passes])
    lines += ["", "  | passes / effective rank | cells | ahead | factor |", "  | --- | --- | --- | --- |"]
    for low, high in pairwise(RATIOS):
        label = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        lines += _gains(label, [p for p in all_ if low < p.passes / _rank(found, p) <= high])
    return [*lines, ""]


def _rank(found: dict[str, Any], place: Place) -> float:
    return float(found["networks"][place.network]["effective_rank"])


def _gains(label: str, some: list[Place]) -> list[str]:
    gains = [place.gain for place in some]
    if not gains:
        return []
    ahead = sum(g > 1 for g in gains) / len(gains)
    told = f"{np.median(gains):.2g} ({min(gains):.2g} … {max(gains):.2g})"
    return [f"  | {label} | {len(gains)} | {ahead:.0%} | {told} |"]


def _auto(found: dict[str, Any], quantity: str) -> list[str]:
    all_ = list(sampled(found, quantity))
    if not all_:
        return []
    far = sorted((place for place in all_ if place.auto > ACCEPTED), key=lambda place: -place.auto)
    sure = [place for place in far if place.surely > ACCEPTED]
    lines = [
        f"- **auto** is within {ACCEPTED:g}× of the best in {len(all_) - len(far)} of {len(all_)} cells; "
        f"{_mean([place.auto for place in all_]):.2f}× in the geometric mean, "
        f"{max(place.auto for place in all_):.2f}× at worst. In {len(sure)} cells it is beyond {ACCEPTED:g}× by "
        "more than the luck of seeds (the lower 95 % bound of the ratio, resampled)."
    ]
    if not far:
        return [*lines, ""]
    lines += [
        f"  Beyond {ACCEPTED:g}×:",
        "",
        "  | network | passes | best | error | auto's error | auto chose (runs) | ratio | at least |",
        "  | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place in far:
        chose = ", ".join(f"`{name}` {count}" for name, count in place.chose.items())
        lines.append(
            f"  | {place.network} | {place.passes} | `{place.best}` | {place.errors[place.best]:.2g} | "
            f"{place.errors['auto']:.2g} | {chose} | {place.auto:.2f} | {place.surely:.2f} |"
        )
    return [*lines, ""]


def _mean(ratios: list[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


# Tables ---------------------------------------------------------------------------------------------------------------


def _map(found: dict[str, Any], quantity: str) -> list[str]:
    """The map as a table."""
    where = places(found, quantity)
    lines = [
        "The map in numbers: the winner, its rms error, its lead over the runner-up; then the choice of auto and its "
        "error over the best.",
        "",
        "| network | M/P | " + " | ".join(f"{passes} passes" for passes in found["budgets"]) + " |",
        "| --- " * (2 + len(found["budgets"])) + "|",
    ]
    for name, facts in found["networks"].items():
        M, P = facts["shape"]
        cells = [_in_numbers(where[name, passes]) for passes in found["budgets"]]
        lines.append(f"| {name} | {M / P:.2g} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _in_numbers(place: Place) -> str:
    if place.exact:
        return "–"
    ratio = f"**{place.auto:.2f}**" if place.auto > ACCEPTED else f"{place.auto:.2f}"
    error = place.errors[place.best]
    return (
        f"{LETTERS[place.winner]} {error:.2g}, {place.factor:.2g}×; auto {LETTERS[place.auto_family].lower()} {ratio}"
    )


def _with_examples(found: dict[str, Any]) -> list[str]:
    """What knowing the examples is worth for a trace."""
    ratios, exact = [], 0
    where = places(found, "trace")
    for place in where.values():
        error = place.errors.get("auto, examples known")
        if error is not None:
            exact += error < 1e-10
            if error >= 1e-10:
                ratios.append(place.errors[place.best] / error)
    if not ratios and not exact:
        return []
    line = (
        f"In {exact + len(ratios)} cells of networks with more than one example the trace was also taken from outputs "
        f"of shape (N, M/N), as `linearize` knows them. auto then goes by example, and finds the trace exactly in "
        f"{exact} of them, those with M/N passes or more: 10 for these MLPs, T·H for the RNNs."
    )
    if ratios:
        line += (
            f" In the other {len(ratios)} its error is {1 / max(ratios):.2g} to {1 / min(ratios):.2g} times that of "
            f"the best estimator above."
        )
    return ["## Traces where the examples are known", "", line, ""]


def _networks(found: dict[str, Any]) -> list[str]:
    """The networks, and what decides."""
    lines = [
        "## The networks",
        "",
        "Reverse / forward: the exact ratio of the standard deviations of both traces at equal passes, "
        "√((‖K‖_F² − Σ K_ii²)/(‖K‖_F² − Σ G_jj²)) with G = JᵀJ. Trained: 200 steps of Adam on the network's own "
        "inputs; the RNNs predict the next row, the MLPs the digit.",
        "",
        "| network | M | P | M/P | effective rank | reverse / forward | loss before and after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, facts in found["networks"].items():
        M, P = facts["shape"]
        loss = f"{facts['loss before']:.3g}, {facts['loss after']:.3g}" if "loss before" in facts else ""
        lines.append(
            f"| {name} | {M} | {P} | {M / P:.2g} | {facts['effective_rank']:.3g} | "
            f"{facts['reverse / forward']:.2f} | {loss} |"
        )
    return [*lines, ""]
