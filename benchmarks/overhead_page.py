"""The page of the benchmark of linear algebra."""

from __future__ import annotations

import statistics
from typing import Any

GOAL, RATIO = 0.2, 1.3


def markdown(found: dict[str, Any]) -> str:
    """The page, from what was measured."""
    machine, frameworks = found["machine"], found["frameworks"]
    names = ", ".join(f"{name} {part['versions'][name]}" for name, part in frameworks.items())
    lines = [
        "# Linear algebra",
        "",
        f"`{found['command']}` on {machine['processor']} ({machine['cores']} cores), {names}, "
        f"numpy {found['versions']['numpy']}. Raw samples: [overhead.json](overhead.json). Do not edit.",
        "",
        "## Outside AD passes",
        "",
        "The models of the [benchmark of passes](passes.md). A run draws probes, pushes them through JVPs and VJPs, "
        "and does linear algebra with what comes out. *Share*: of a run's time, what is neither in the maps over "
        "probes nor in drawing these, and after a plus sign the share of drawing, which is done on the host, so that "
        f"probes are the same everywhere; medians of {found['runs']} runs with seeds of their own, after one that "
        f"compiles. Goal for the first: below {100 * GOAL:.0f} %; ✗ where it is missed, in "
        f"{sum(share(cell) >= GOAL for cell in found['cells'])} of {len(found['cells'])} cells. In brackets "
        "milliseconds of the whole run, and after a stroke those of a run without the model's [compact "
        f"form](../estimators.md), where it has one. {_gain(found['cells'])}Gradients of single examples are not used "
        "here.",
    ]
    for quantity in dict.fromkeys(cell["quantity"] for cell in found["cells"]):
        lines += ["", f"### {quantity.replace('_', ' ').capitalize()}", ""]
        lines += _shares([cell for cell in found["cells"] if cell["quantity"] == quantity], found)
    lines += [
        "",
        "## Beside plain NumPy",
        "",
        f"The trace of an explicit operator K = J Jᵀ, {found['size']} outputs and the spectrum {found['spectrum']}, "
        "against the same algorithm transcribed to a dozen lines of NumPy (`benchmarks/transcriptions.py`), in turns. "
        f"*Ratio*: of the times, median. Goal: at most {RATIO}.",
        "",
        "| method | passes | ours, ms | plain, ms | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell in found["explicit"]:
        ours, plain = (1e3 * statistics.median(cell[key]) for key in ("seconds", "plain"))
        missed = "" if cell["ratio"] <= RATIO else " ✗"
        lines.append(
            f"| `{cell['method']}` | {cell['passes']} | {ours:.1f} | {plain:.1f} | {cell['ratio']:.2f}{missed} |"
        )
    return "\n".join(lines) + "\n"


def share(cell: dict[str, Any]) -> float:
    """Of a run's time, what is neither in AD passes nor in drawing probes."""
    times = zip(cell["inside"], cell["drawing"], cell["seconds"], strict=True)
    return statistics.median(1 - (i + d) / s for i, d, s in times)


def _gain(cells: list[dict[str, Any]]) -> str:
    """By which factor compact forms are faster, for methods that push cotangents."""
    through = [cell for cell in cells if cell["whole"] and cell["method"] != "forward"]
    if not through:
        return ""
    gains = [statistics.median(w / s for w, s in zip(c["whole"], c["seconds"], strict=True)) for c in through]
    return (
        f"That takes {min(gains):.1f} to {max(gains):.1f} times as long, {statistics.median(gains):.1f} in the median, "
        "but for forward mode, which draws tangents and has no use for it. It is passes that become shorter, so that "
        "shares of the rest grow. "
    )


def _shares(cells: list[dict[str, Any]], found: dict[str, Any]) -> list[str]:
    columns = [
        (framework, case, budget)
        for framework in found["frameworks"]
        for case in found["cases"]
        for budget in found["budgets"]
    ]
    rows = [
        "| | "
        + " | ".join(f"{framework} {case.upper()}, {budget} passes" for framework, case, budget in columns)
        + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for method in dict.fromkeys(cell["method"] for cell in cells):
        words = []
        for column in columns:
            for cell in cells:
                if (cell["framework"], cell["case"], cell["budget"], cell["method"]) == (*column, method):
                    missed = "" if share(cell) < GOAL else " ✗"
                    drawn = statistics.median(d / s for d, s in zip(cell["drawing"], cell["seconds"], strict=True))
                    taken = "/".join(f"{1e3 * statistics.median(cell[k]):.0f}" for k in ("seconds", "whole") if cell[k])
                    words.append(f"{100 * share(cell):.0f} % + {100 * drawn:.0f} % ({taken}){missed}")
        rows.append(f"| `{method}` | " + " | ".join(words) + " |")
    return rows
