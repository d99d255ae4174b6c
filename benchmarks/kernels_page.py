"""The page of the benchmark of kernels, from what was measured and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from .kernels_goals import GOALS, Goal
from .report import _seconds, _table
from .timing import spread

KINDS = {"pntk": "pNTK", "full": "full NTK", "trace": "exact trace"}

Cell = dict[str, Any]


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    parts = ["# Exact kernels", _about(found), "## Goals", _goals(found)]
    for race in found["races"]:
        parts += [f"## {race['title']}: {KINDS[race['kind']]}", _lead(race), _rows(race, found["gemm_flops"])]
        notes = list(_notes(race))
        parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


# What was measured ----------------------------------------------------------------------------------------------------


def to_ours(race: Cell, cell: Cell) -> float | None:
    """Its seconds over ours for as many examples in the same framework, the median over turns."""
    ours = next((c for c in race["contestants"] if c["ours"] and c["framework"] == cell["framework"]), {})
    return _median_ratio(_samples(cell), ours.get("samples", {}).get(str(cell.get("examples")), []))


def to_floor(cell: Cell, gemm_flops: int) -> float | None:
    """Seconds over those of the least products at the rate of the matrix product beside it, the median over turns."""
    samples = _samples(cell)
    if not samples:
        return None
    return statistics.median(seconds / (cell["floor"] / gemm_flops * gemm) for seconds, gemm in samples)


def reached(goal: Goal, found: dict[str, Any]) -> float | None:
    """The number that a goal is about; None where it was not measured."""
    for race in found["races"]:
        if (race["network"], race["kind"]) == (goal.network, goal.kind):
            cells = [c for c in race["contestants"] if c["framework"] == goal.framework]
            if goal.against == "floor":
                return next((to_floor(c, found["gemm_flops"]) for c in cells if c["ours"]), None)
            peers = [c for c in cells if not c["ours"] and c["title"].startswith(goal.against)]
            whole = [c for c in peers if c.get("examples") == race["examples"]]  # who has the whole kernel, if any
            ratios = [to_ours(race, c) for c in whole or peers]
            best = min((r for r in ratios if r is not None), default=None)
            return best if best is None or goal.least else 1 / best
    return None


def _samples(cell: Cell) -> list[list[float]]:
    samples: list[list[float]] = cell.get("samples", {}).get(str(cell.get("examples")), [])
    return samples


def _median_ratio(over: list[list[float]], under: list[list[float]]) -> float | None:
    ratios = [a / b for (a, _), (b, _) in zip(over, under, strict=False)]
    return statistics.median(ratios) if ratios else None


# How it is shown ------------------------------------------------------------------------------------------------------


def _about(found: dict[str, Any]) -> str:
    machine, limits = found["machine"], found["limits"]
    versions: dict[str, str] = {}
    for race in found["races"]:
        for cell in race["contestants"]:
            own = cell.get("versions", {})
            old = "neural-tangents" in own
            versions |= {f"{name} {own[name]}": "" for name in own if not old or name == "neural-tangents"}
            versions |= {f"jax {own['jax']} for neural-tangents": ""} if old else {}
    commands = ", ".join(f"`{c}`" for c in dict.fromkeys(r.get("command", found["command"]) for r in found["races"]))
    load = " → ".join(f"{machine[key][0]:.1f}" for key in ("load", "load at the end") if key in machine)
    return (
        f"{commands} on {machine['processor']} (family/model {machine.get('family', '?')}, {machine['cores']} cores, "
        f"load {load}), "
        f"{found['threads']} threads, float32; {', '.join(versions)}. The numbers behind it are in the JSON file "
        "beside this one, from which `python -m benchmarks table FILE.json` makes this page.\n\n"
        "Every contestant has a process of its own and the same weights and inputs, and is ready for its next call: "
        "what it prepares once for a network, as tracing and compiling, is in *first*, which is the time from weights "
        "to the first kernel. *Time*: median and quartiles of samples taken in turns. *Over ours*: its time over that "
        "of ntkest in the same framework, for as many examples, the median over turns. *Over floor*: its time over "
        "that of the fewest multiplications and additions with which the products can be done, symmetric ones by half, "
        "at the rate of a 1024³ float32 product in the same process, timed before and after each sample; elementwise "
        "work and whatever is not a product would take no time at all. *Memory*: the most that a call takes "
        "beyond what the process holds before. *Error*: of the kernel of the first examples, the largest against the "
        "largest entry, the truth being rows of the Jacobian by NumPy in float64.\n\n"
        f"Who would take more than {limits['seconds']:g} s or {limits['bytes'] / 1e9:g} GB a call is given fewer "
        "examples, which is said, and is compared with ours on as many. Goals are about those who have the whole "
        "kernel, where anyone has."
    )


def _goals(found: dict[str, Any]) -> str:
    rows = []
    for goal in GOALS:
        value = reached(goal, found)
        if value is not None:
            good = value >= goal.bound if goal.least else value <= goal.bound
            rows.append(
                [
                    f"{goal.network}, {KINDS[goal.kind]}",
                    goal.framework,
                    goal.text,
                    f"{'at least' if goal.least else 'at most'} {goal.bound:g}",
                    f"{value:.2f}" + ("" if good else " ✗"),
                ]
            )
    return _table(["", "", "ratio", "goal", "found"], rows)


def _lead(race: Cell) -> str:
    if race["kind"] == "trace":
        return f"N = {race['examples']}, beside as many reverse passes of the whole batch as an example has outputs."
    return f"N = {race['examples']}. Floor: {race['floor'] / 1e9:.2g} GFLOP."


def _rows(race: Cell, gemm_flops: int) -> str:
    rows = []
    for cell in race["contestants"]:
        samples = _samples(cell)
        if not samples:
            continue
        time = spread([seconds for seconds, _ in samples])
        ratio, floor, error = to_ours(race, cell), to_floor(cell, gemm_flops), cell.get("error")
        rows.append(
            [
                f"**{cell['title']}**" if cell["ours"] else cell["title"],
                str(cell["examples"]) + ("" if cell["examples"] == race["examples"] else " (!)"),
                f"{_seconds(time['median'])} ({_seconds(time['quartile_1'])} … {_seconds(time['quartile_3'])})",
                "1" if cell["ours"] else "" if ratio is None else _digits(ratio),
                "" if floor is None or race["kind"] == "trace" else _digits(floor),
                f"{cell['trial']['bytes'] / 1e6:.0f} MB",
                _seconds(cell["trial"]["first"]),
                "" if error is None else f"{error:.0e}",
            ]
        )
    return _table(["", "N", "time (quartiles)", "over ours", "over floor", "memory", "first", "error"], rows)


def _notes(race: Cell) -> Iterator[str]:
    for cell in race["contestants"]:
        if "skipped" in cell:
            yield f"- {cell['title']}: not measured; {cell['skipped']}."
        elif cell.get("wrong"):
            yield f"- {cell['title']}: wrong, by {cell['error']:.2g} of the largest entry, and therefore not timed."
        elif "stopped" in cell:
            yield f"- {cell['title']}: not with {cell['stopped']['examples']} examples; {cell['stopped']['reason']}."


def _digits(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2f}"
