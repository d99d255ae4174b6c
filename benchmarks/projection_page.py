"""The page of the benchmark of projections, from what was measured and from nothing else."""

from __future__ import annotations

import statistics
from typing import Any

from .report import _seconds, _table
from .timing import spread

TITLES = {"rademacher": "Random signs", "gaussian": "Normal numbers", "sjlt": "Sparse signs"}

Cell = dict[str, Any]


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    parts = ["# Random projections", _about(found)]
    for kind, cells in found["kinds"].items():
        parts += [f"## {TITLES[kind]}", _rows(cells, found)]
        notes = [f"- {_title(cell)}: not measured; {cell['skipped']}." for cell in cells if "skipped" in cell]
        parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def to_ours(cell: Cell, cells: list[Cell]) -> float | None:
    """Its seconds over ours, the median over turns."""
    ours = next((c["samples"] for c in cells if c["library"] == "ntkest"), [])
    ratios = [mine[0] / own[0] for mine, own in zip(cell["samples"], ours, strict=False)]
    return statistics.median(ratios) if ratios else None


def _about(found: dict[str, Any]) -> str:
    machine, (n, size, dim) = found["machine"], found["shape"]
    versions = {
        f"{name} {version}": ""
        for cells in found["kinds"].values()
        for cell in cells
        for name, version in cell.get("versions", {}).items()
    }
    load = " → ".join(f"{machine[key][0]:.1f}" for key in ("load", "load at the end") if key in machine)
    return (
        f"`{found['command']}` on {machine['processor']} ({machine['cores']} cores, load {load}), {found['threads']} "
        f"threads, float32; {', '.join(versions)}. The numbers behind it are in the JSON file beside this one, from "
        "which `python -m benchmarks table FILE.json` makes this page.\n\n"
        f"The same {n:,} gradients of {size:,} numbers for everybody, given as one array, to {dim:,} features each. "
        "*Time*: median and quartiles of calls taken in turns, by projectors made beforehand. *Over ours*: the median "
        "ratio over turns. *Over product*: its time over that of the dense product with a stored matrix, at the rate "
        "of a 1024³ float32 product in the same process, timed before and after each call. *Memory*: the most that the "
        "projector and its first call take, beside the gradients. *Error*: of inner products of features, over the "
        "norms of both gradients, root mean square over all pairs; features are divided by the root of their number. "
        f"Normal numbers would have {found['expected']:.3g}. On a CPU traker and dattri have one projector each, which "
        "makes 100 columns of the matrix at a time."
    )


def _title(cell: Cell) -> str:
    return f"{cell['library']}, {cell['projector']}"


def _rows(cells: list[Cell], found: dict[str, Any]) -> str:
    rows = []
    for cell in cells:
        if not cell["samples"]:
            continue
        time = spread([seconds for seconds, _ in cell["samples"]])
        ratio, rate = to_ours(cell, cells), found["floor"] / found["gemm_flops"]
        rows.append(
            [
                f"**{_title(cell)}**" if cell["library"] == "ntkest" else _title(cell),
                f"{_seconds(time['median'])} ({_seconds(time['quartile_1'])} … {_seconds(time['quartile_3'])})",
                "1" if cell["library"] == "ntkest" else "" if ratio is None else f"{ratio:.2f}",
                f"{statistics.median(seconds / (rate * gemm) for seconds, gemm in cell['samples']):.2f}",
                f"{cell['bytes'] / 1e6:,.0f} MB",
                f"{cell['error']:.4f}",
            ]
        )
    return _table(["", "time (quartiles)", "over ours", "over product", "memory", "error"], rows)
