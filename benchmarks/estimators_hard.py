"""The part of the page on failures: what raised, what was no number, and what was wrong, for ours and the peers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

SAME = 1e-6
"""Relative difference up to which two estimates are the same but for scale."""

WRONG = 0.5
"""Relative error from which an estimate is called wrong: sampling errors of these methods are far below."""


def hard_cases(raw: dict[str, Any]) -> Iterator[str]:
    """Paragraphs and tables."""
    yield _in_the_contest(raw["cells"])
    yield _not_run(raw["cells"])
    stress = raw["stress"]
    if not stress:
        return
    cases = list(dict.fromkeys(cell["stress"] for cell in stress))
    rows = []
    for key in dict.fromkeys((c["library"], c["method"], c["quantity"]) for c in stress):
        mine = {c["stress"]: c for c in stress if (c["library"], c["method"], c["quantity"]) == key}
        if all("cannot" in cell for cell in mine.values()):
            continue
        outcomes = [_outcome(mine[case]) if case in mine else "–" for case in cases]
        rows.append([f"{key[0]} {key[1]}", key[2].replace("_", " "), *outcomes])
    size, budget, seeds = stress[0]["size"], stress[0]["budget"], stress[0]["seeds"]
    yield "### Hard cases"
    yield (
        f"{size} outputs, {budget} passes, {seeds} seeds. Scaled: 1e-20 and 1e20 times the exponential spectrum, "
        f"where an estimate must be that of the same seed unscaled to {SAME:g}; rank 5, below the number of samples, "
        "between random bases, and on five outputs with all others zero; the zero operator; and, where probes can be "
        "given, a second half that repeats the first. For all but the scaled ones the number is the median relative "
        "error (for zero the value itself). Bold: an exception, NaN, a change with the scale, or an error above "
        f"{WRONG:g}. The effective rank of zero is 0/0, so that an exception is right."
    )
    head = ["", "", *cases]
    yield "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _outcome(cell: dict[str, Any]) -> str:
    if "cannot" in cell:
        return "–"
    errors = [abs(e) for e in cell["errors"] if e is not None]
    told = [failure.partition(":")[0] for failure in cell.get("failures", ())]
    right = cell["stress"] == "zero" and cell["quantity"] == "effective_rank"
    if told:
        text = ", ".join(sorted(set(told)))
        return text if right else f"**{text}**"
    if not errors:
        return "–"
    if cell["stress"].startswith("scale"):
        return "ok" if max(errors) <= SAME else f"**changes by {max(errors):.1g}**"
    middle = statistics.median(errors)
    text = "exact" if middle < 1e-10 else f"{middle:.1g}"
    return f"**{text}**" if middle > WRONG else text


def _not_run(cells: list[dict[str, Any]]) -> str:
    """Methods that had no form for some budgets."""
    lines: dict[str, list[str]] = {}
    for key in dict.fromkeys((c["library"], c["method"], c["quantity"]) for c in cells if "cannot" in c):
        mine = [c for c in cells if (c["library"], c["method"], c["quantity"]) == key and "cannot" in c]
        budgets = ", ".join(map(str, sorted({c["budget"] for c in mine})))
        what = f"{key[0]} {key[1]}, {key[2].replace('_', ' ')}, at {budgets} passes"
        lines.setdefault(mine[0]["cannot"], []).append(what)
    if not lines:
        return "Every method had a form for every budget."
    told = "\n".join(f"- {reason}: {'; '.join(methods)}" for reason, methods in lines.items())
    return f"Methods that did not run:\n\n{told}"


def _in_the_contest(cells: list[dict[str, Any]]) -> str:
    """Runs that failed on the operators of the tables above."""
    lines = []
    for key in dict.fromkeys((c["library"], c["method"], c["quantity"]) for c in cells if c.get("failures")):
        mine = [c for c in cells if (c["library"], c["method"], c["quantity"]) == key and c.get("failures")]
        places: dict[str, list[int]] = {}
        for cell in mine:
            places.setdefault(cell["operator"], []).append(cell["budget"])
        runs = sum(sum(cell["failures"].values()) for cell in mine)
        messages = sorted({message for cell in mine for message in cell["failures"]})
        where = "; ".join(f"{name} at {', '.join(map(str, budgets))}" for name, budgets in places.items())
        told = ", ".join(f"`{message}`" for message in messages[:3])
        lines.append(f"- {key[0]} {key[1]}, {key[2].replace('_', ' ')}: {runs} runs ({told}): {where} passes")
    if not lines:
        return "No run of the contest itself raised an exception or returned NaN."
    return "Runs of the contest itself that raised an exception or returned NaN:\n\n" + "\n".join(lines)
