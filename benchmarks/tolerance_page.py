"""Markdown of the study of tolerances from its JSON, and from nothing else."""

from __future__ import annotations

from typing import Any

from .contest import QUANTITIES
from .estimators_page import table

WITHIN, EXCESS = 0.93, 1.5
"""Goals of "auto": at least this share of runs within the tolerance, at most this many times the least passes."""

Cell = dict[str, Any]


def markdown(raw: dict[str, Any]) -> str:
    """The page."""
    networks = ", and trained networks" if _networks(raw) else ""
    parts = ["# Tolerances", _about(raw), "## In short", _verdict(raw)]
    for held_out, title, text in (
        (False, f"Spectra for tuning{networks}", "Rules may have been tuned on these."),
        (True, "Held-out spectra", "No rule and no constant was tuned on these."),
    ):
        for quantity in QUANTITIES:
            rows = [
                _row(raw, name, quantity)
                for name in dict.fromkeys(c["operator"] for c in raw["cells"])
                if (name in raw["held_out"]) is held_out
            ]
            if rows and quantity == QUANTITIES[0]:
                parts += [f"## {title}", text]
            if rows:
                named = _named(raw)
                head = ["", "least", "within", "passes", "ratio", "`auto` ended as", *(f"`{m}`" for m in named)]
                parts += [f"### {_title(quantity)}: {title.lower()}", table(head, rows)]
    return "\n\n".join(parts) + "\n"


def _networks(raw: dict[str, Any]) -> bool:
    return any(cell["operator"].startswith("digits") for cell in raw["cells"])


def _about(raw: dict[str, Any]) -> str:
    host = raw["machine"]
    tolerance, seeds = f"{100 * raw['rtol']:g} %", raw["seeds"]
    smaller = "" if raw["size"] >= 2000 else ", fewer than elsewhere, for speed"
    return (
        f"`{raw['command']}` on {host['processor']} (family/model {host['family']}), {raw['seconds']} s of one core, "
        "float64; "
        + ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
        + ". All numbers are in [tolerance.json](tolerance.json). Do not edit.\n\n"
        f"Operators are K = J Jᵀ with {raw['size']} outputs{smaller}: explicit J with the spectrum that the name says, "
        "between dense random orthogonal bases"
        + ("; and Jacobians of networks trained on scikit-learn's digits, taken as matrices" if _networks(raw) else "")
        + ". Runs with "
        f"`rtol={raw['rtol']:g}` stop where the 95 % interval is ± {tolerance} or less. *Within*: the share of {seeds} "
        f"such runs of `auto` whose value is within {tolerance} of the truth, whatever they say of themselves. "
        "*Passes*: their mean, and in brackets their 90th percentile. *Least*: the fewest passes, fixed beforehand, at "
        f"which the best method is within {tolerance} in {100 * raw['share']:g} % of {seeds} runs, and that method, of "
        "`xnystrace`, `xtrace`, `xtrace-power`, `reverse`, `hutch++` and `exact`; "
        "this is what somebody would spend who knew the "
        "truth and needed no error bar. *Ratio*: mean passes over the least. "
        + (
            f"The last columns are methods that were named: passes, and the share within, of {raw['named']} runs "
            "each; –: the tolerance is out of reach for twice the passes of the exact value."
            if raw["named"]
            else ""
        )
    )


def _verdict(raw: dict[str, Any]) -> str:
    rows = []
    for held_out in (False, True):
        for quantity in QUANTITIES:
            names = [
                c["operator"]
                for c in raw["cells"]
                if c["kind"] == "least" and c["quantity"] == quantity and (c["operator"] in raw["held_out"]) is held_out
            ]
            if names:
                auto = [_cell(raw, name, quantity, "tolerance", "auto") for name in names]
                ratios = [_ratio(raw, name, quantity) for name in names]
                rows.append(
                    [
                        _title(quantity) + (", held out" if held_out else ""),
                        str(len(names)),
                        str(sum(c["within"] >= WITHIN for c in auto)),
                        f"{min(c['within'] for c in auto):.3f}",
                        str(sum(r <= EXCESS for r in ratios)),
                        f"{max(ratios):.2f}",
                    ]
                )
    head = ["", "operators", f"within in ≥ {WITHIN:.0%}", "lowest share", f"ratio ≤ {EXCESS:g}", "largest ratio"]
    return (
        f"Goals: at least {WITHIN:.0%} of the runs of `auto` within the tolerance, and a ratio of at most {EXCESS:g}; "
        f"✗ below where one is missed.\n\n{table(head, rows)}"
    )


def _row(raw: dict[str, Any], name: str, quantity: str) -> list[str]:
    least = _cell(raw, name, quantity, "least")
    auto, ratio = _cell(raw, name, quantity, "tolerance", "auto"), _ratio(raw, name, quantity)
    return [
        name,
        f"{least['passes']} `{least['method']}`",
        f"{auto['within']:.3f}" + ("" if auto["within"] >= WITHIN else " ✗"),
        f"{auto['passes']:.0f} ({auto['quantiles'][3]})",
        f"{ratio:.2f}" + ("" if ratio <= EXCESS else " ✗"),
        ", ".join(f"{method} {count / auto['seeds']:.0%}" for method, count in auto["ended_as"].items()),
        *(_reached(_cell(raw, name, quantity, "tolerance", method)) for method in _named(raw)),
    ]


def _named(raw: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(c["method"] for c in raw["cells"] if c["kind"] == "tolerance" and c["method"] != "auto"))


def _reached(cell: Cell) -> str:
    return f"{cell['passes']:.0f} ({cell['within']:.2f})" if cell["converged"] >= 0.5 else "–"


def _ratio(raw: dict[str, Any], name: str, quantity: str) -> float:
    spent, least = _cell(raw, name, quantity, "tolerance", "auto"), _cell(raw, name, quantity, "least")
    return float(spent["passes"] / least["passes"])


def _cell(raw: dict[str, Any], name: str, quantity: str, kind: str, method: str = "") -> Cell:
    return next(
        c
        for c in raw["cells"]
        if (c["operator"], c["quantity"], c["kind"]) == (name, quantity, kind) and method in ("", c["method"])
    )


def _title(quantity: str) -> str:
    return quantity.replace("_", " ").capitalize().replace("frobenius", "Frobenius")
