"""Markdown from the raw JSON, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .cases import CASES
from .timing import spread

GOAL = 1.15


def markdown(raw: dict[str, Any]) -> str:
    """The report of the benchmark of passes."""
    parts = [
        "# Passes through ntkest and by hand",
        _about(raw),
        "## Traces",
        _traces(raw),
        _ratios(raw),
        "### Who else took part",
        _race(raw),
    ]
    if raw["imports"]:
        parts += ["## Import and first result", _imports(raw), _first(raw)]
    if raw["compilations"]:
        parts += ["## Compilations", _compilations(raw["compilations"])]
    return "\n\n".join(parts) + "\n"


def _about(raw: dict[str, Any]) -> str:
    machine = raw["machine"]
    versions: dict[str, str] = {}
    for framework in raw["frameworks"].values():
        versions.update(framework["versions"])
    cores = {framework["threads"]["cores"] for framework in raw["frameworks"].values()}
    return (
        f"`{raw['command']}` on {machine['processor']} (family/model {machine['family']}, {machine['cores']} cores), "
        f"{'/'.join(map(str, sorted(cores)))} threads, float32; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ". The numbers behind it are in the JSON file beside this one, from which "
        "`python -m benchmarks table FILE.json` makes this page."
    )


def _traces(raw: dict[str, Any]) -> str:
    passes, pairs = raw["passes"], raw["pairs"]
    return (
        f"Seconds of `ntkest.trace(J, method=…, passes={passes}, seed=…)` on a J made beforehand, every call with a "
        f"new seed, beside the quickest of the hand-written forms, the winner of a race in the same process. Both draw "
        f"{passes} sign probes, push them through and return a mean and its standard error. Ratio: ours over by hand, "
        f"the median of {pairs} pairs taken in turns, with quartiles and extremes. The goal is {GOAL} or less. "
        "What a form prepares once for a J, as `func.linearize` does by tracing the model, is not counted.\n\n"
        "Of GEMM: the multiplications and additions in the matrix products and convolutions of the passes, over the "
        "seconds, over the rate of a 1024³ float32 product in the same framework, timed in the same turns. A "
        "VJP and a JVP count twice the forward's products (∂W = δxᵀ and ∂x = Wᵀδ; Ẇx and Wẋ), the first layer's once "
        "because its input is data; the primal and all elementwise work count nothing. Reverse mode of the MLP takes "
        "fewer, for it goes through a [compact form](../estimators.md) that has no ∂W."
    )


def _ratios(raw: dict[str, Any]) -> str:
    rows = []
    for result in raw["results"]:
        samples = result["samples"]
        pairs = zip(samples["ours"], samples["by_hand"], strict=True)
        ratio = spread([ours / hand for ours, hand in pairs])
        rows.append(
            [
                CASES[result["case"]].title,
                result["framework"],
                result["mode"],
                f"**{ratio['median']:.2f}**" + ("" if ratio["median"] <= GOAL else " ✗"),
                f"{ratio['quartile_1']:.2f} … {ratio['quartile_3']:.2f}",
                f"{ratio['min']:.2f} … {ratio['max']:.2f}",
                _seconds(statistics.median(samples["ours"])),
                _seconds(statistics.median(samples["by_hand"])),
                f"{_of_gemm(result, 'ours'):.0%}",
                f"{_of_gemm(result, 'by_hand'):.0%}",
                result["race"]["winner"],
            ]
        )
    head = ["", "", "mode", "ratio", "quartiles", "extremes", "ours", "by hand", "of GEMM", "by hand", "best by hand"]
    return _table(head, rows)


def _of_gemm(result: dict[str, Any], who: str) -> float:
    """FLOP/s of the passes over those of the matrix product, the median over turns."""
    samples = result["samples"]
    turns = zip(samples[who], samples["gemm"], strict=True)
    return statistics.median(result["flops"] / mine / (result["gemm_flops"] / gemm) for mine, gemm in turns)


def _race(raw: dict[str, Any]) -> str:
    """Median seconds of every contestant."""
    rows = []
    for result in raw["results"]:
        race = result["race"]
        medians = {name: statistics.median(s[1:] or s) for name, s in race["seconds"].items()}
        ranking = sorted(medians, key=lambda name: medians[name])
        told = "; ".join(f"{name} {_seconds(medians[name])}" for name in ranking)
        told += "".join(f"; {name} failed" for name in race["failed"])
        rows.append([result["case"], result["framework"], result["mode"], told])
    return _table(["", "", "mode", "contestants"], rows)


def _imports(raw: dict[str, Any]) -> str:
    rows = []
    for name, samples in raw["imports"].items():
        found = spread(samples)
        rows.append([f"`import {name}`", _seconds(found["median"]), _seconds(found["min"]), _seconds(found["max"])])
    return f"Each in {len(samples)} fresh interpreters.\n\n" + _table(["", "median", "least", "most"], rows)


def _first(raw: dict[str, Any]) -> str:
    rows = []
    for name, runs in raw["first_result"].items():
        rows.append([name, *(_seconds(statistics.median(run[step] for run in runs)) for step in runs[0])])
    head = [
        f"`{s}`" if s in ("ntkest", "linearize", "trace") else s for s in next(iter(raw["first_result"].values()))[0]
    ]
    return (
        "From a fresh interpreter to the trace of the MLP with 32 passes, step by step: the imports, the model, "
        "`linearize` with its checks, and the first `trace`, compilation included.\n\n" + _table(["", *head], rows)
    )


def _compilations(counts: dict[str, list[int]]) -> str:
    jitted, eager = counts["jitted"], counts["eager"]
    return (
        f"{len(jitted)} jitted training steps with a trace in the loss and new probes in every step compiled "
        f"{sum(jitted)} program{'s' * (sum(jitted) != 1)}, {sum(jitted[1:])} of them after the first step. "
        f"{len(eager)} eager steps, each with a fresh closure, new parameters, a new batch and a new seed, compiled "
        f"{sum(eager)}, {sum(eager[1:])} of them after the first step."
    )


def _seconds(value: float) -> str:
    """Three digits, in s or ms."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
