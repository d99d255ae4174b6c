"""Linear algebra: what estimators spend outside AD passes, and beside the same algorithm in plain NumPy.

``python -m benchmarks overhead`` writes docs/benchmarks/overhead.json and the page overhead.md beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ntkest

from . import overhead_page
from .contest_worker import digits, versions
from .operators import operator
from .overhead_worker import BUDGETS, CASES
from .passes import child, machine
from .peers_ntkest import PACKAGES
from .transcriptions import TRANSCRIPTIONS

EXPLICIT = (40, 120, 400)
"""AD passes on the explicit operator."""

SPECTRUM = "power-1"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file and the page that shows it."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default: %(default)s)")
    parser.add_argument("--size", type=int, default=2000, help="outputs of the explicit operator")
    parser.add_argument("--framework", choices=("torch", "jax"), action="append", help="only this; may be repeated")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everything")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    options = parser.parse_args(given)
    if min(options.runs, options.threads) < 1 or options.size <= max(EXPLICIT):
        parser.error(f"--runs and --threads take positive numbers, --size one above {max(EXPLICIT)}")
    words = ["--runs", str(options.runs), "--threads", str(options.threads)]
    parts = {
        name: child(options.threads, "-m", "benchmarks.overhead_worker", name, *words)
        for name in options.framework or ("torch", "jax")
    }
    found = {
        "benchmark": "overhead",
        "command": shlex.join(["python", "-m", "benchmarks", "overhead", *given]),
        "runs": options.runs,
        "machine": machine(),
        "frameworks": {name: {key: part[key] for key in ("versions", "threads")} for name, part in parts.items()},
        "versions": versions(PACKAGES),
        "cases": CASES,
        "budgets": BUDGETS,
        "size": options.size,
        "spectrum": SPECTRUM,
        "cells": [_rounded(cell) for part in parts.values() for cell in part["cells"]],
        "explicit": list(explicit(options.size, options.runs)),
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "overhead.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = options.folder / "overhead.md"
    page.write_text(overhead_page.markdown(found), encoding="utf-8")
    print(f"wrote {page}")


def explicit(size: int, runs: int) -> Iterator[dict[str, Any]]:
    """Seconds of our runs and of the transcription's, in turns."""
    subject = operator(SPECTRUM, size, Path())
    J = ntkest.from_jacobian(subject.jacobian)
    for method, (plain, each) in TRANSCRIPTIONS.items():
        for passes in EXPLICIT:
            ours, theirs, errors = [], [], []
            for seed in range(runs + 1):
                start = time.perf_counter()
                value = float(ntkest.trace(J, method=method, passes=passes, seed=seed))
                middle = time.perf_counter()
                other, _ = plain(subject.jacobian, passes // each, seed)
                ours.append(middle - start)
                theirs.append(time.perf_counter() - middle)
                errors.append([digits(v / subject.truth["trace"] - 1) for v in (value, other)])
            yield {
                "method": method,
                "passes": passes,
                "seconds": [digits(s) for s in ours[1:]],
                "plain": [digits(s) for s in theirs[1:]],
                "ratio": digits(statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))),
                "errors": errors,
            }


def _rounded(cell: dict[str, Any]) -> dict[str, Any]:
    return {**cell, **{key: [digits(s) for s in cell[key]] for key in ("seconds", "inside", "drawing", "whole")}}
