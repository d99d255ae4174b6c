"""A map of which side wins: networks with M/P from 0.05 to 20, and 10 to 1000 AD passes.

``python -m benchmarks sides`` writes docs/benchmarks/sides.json, the page sides.md and the figure sides.svg beside it.
It needs scikit-learn and matplotlib (``python -m pip install ".[app]"``).

A process a core, each with one thread. Every network is written to a file when it is measured, and a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import ntkest
from ntkest.linearization import InvalidValueError

from . import sides_page
from .sides_networks import PANELS, SMALL, Network, jacobian

METHODS = ("reverse", "forward", "xnystrace", "xtrace", "xtrace-power", "hutch++", "auto")
WITH_EXAMPLES = "auto, examples known"
"""What "auto" does for traces when it is told which outputs belong to one example."""

QUANTITIES = ("trace", "effective_rank")
BUDGETS = (10, 30, 100, 300, 1000)
SEEDS = 30
SHARE, MANY = 3, 1000
"""One seed in three for runs of so many passes or more: they cost most."""


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure what is missing, and write the results."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks sides", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each method (default: %(default)s)")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="AD passes of a run")
    parser.add_argument("--quantity", choices=QUANTITIES, action="append", help="only this; may be repeated")
    parser.add_argument("--small", action="store_true", help="two tiny networks instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/sides"), help="networks measured so far")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--render", action="store_true", help="only write page and figure again, from the JSON file")
    options = parser.parse_args(given)
    if min(options.seeds, options.jobs, *options.budgets) < 1:
        parser.error("--seeds, --jobs and --budgets take positive numbers")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "sides.json"
    if not options.render:
        found = measure(options)
        found["command"] = shlex.join(["python", "-m", "benchmarks", "sides", *given])
        write(found, file)
    sides_page.write(json.loads(file.read_text(encoding="utf-8")), options.folder)
    print(f"wrote {options.folder}/sides.json, sides.md and sides.svg", file=sys.stderr)


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks, the largest first so that no core waits long at the end."""
    panels = SMALL if options.small else PANELS
    setting = {
        "budgets": options.budgets,
        "seeds": [options.seeds if b < MANY else max(2, options.seeds // SHARE) for b in options.budgets],
        "quantities": options.quantity or list(QUANTITIES),
        "versions": {
            "ntkest": ntkest.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
    options.work.mkdir(parents=True, exist_ok=True)
    networks = [network for panel in panels.values() for network in panel]
    todo = [n for n in networks if not _kept(options.work, n, setting)]
    todo.sort(key=lambda n: (min(n.shape) > MANY, n.shape[0] * n.shape[1]), reverse=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(_work, todo, [setting] * len(todo), [options.work] * len(todo)))
    results = {n.name: _kept(options.work, n, setting) for n in networks}
    return {
        "benchmark": "sides",
        **setting,
        "machine": platform.machine(),
        "core_seconds": round(sum(r["seconds"] for r in results.values())),
        "panels": {title: [network.name for network in panel] for title, panel in panels.items()},
        "networks": {name: result["facts"] for name, result in results.items()},
        "cells": [cell for result in results.values() for cell in result["cells"]],
    }


def _file(work: Path, network: Network) -> Path:
    return work / f"{network.name.replace(' ', '-')}.json"


def _kept(work: Path, network: Network, setting: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a network under these settings, or nothing."""
    file = _file(work, network)
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found if found.get("setting") == setting else {}


def _work(network: Network, setting: dict[str, Any], work: Path) -> None:
    """Measure a network, and keep what was found."""
    start = time.process_time()
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    with threadpool_limits(1):
        cells = measured(network, setting["quantities"], dict(zip(setting["budgets"], setting["seeds"], strict=True)))
    found = {"setting": setting, **cells}
    found["seconds"] = time.process_time() - start
    part = _file(work, network).with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(_file(work, network))
    print(f"{network.name}: {found['seconds']:.0f} s", file=sys.stderr, flush=True)


def measured(network: Network, quantities: Sequence[str], seeds: dict[int, int]) -> dict[str, Any]:
    """Facts of a network, and a cell a quantity, budget and method; none where exact costs no more passes.

    `seeds` has the number of runs for every budget.
    """
    matrix, told = jacobian(network)
    facts = facts_of(matrix)
    plain = ntkest.from_jacobian(matrix)
    grouped = ntkest.from_jacobian(matrix, output_shape=(network.examples, len(matrix) // network.examples))
    cells = []
    for quantity in quantities:
        for budget, runs in seeds.items():
            if budget >= min(matrix.shape):
                continue
            for method in METHODS:
                cells.append(_cell(plain, quantity, budget, method, runs, facts[quantity]))
            if quantity == "trace" and network.examples > 1:
                cell = _cell(grouped, quantity, budget, "auto", runs, facts[quantity])
                cells.append({**cell, "method": WITH_EXAMPLES})
    rounded = {key: _digits(value) for key, value in {**facts, **told}.items()}
    return {
        "facts": {"shape": list(matrix.shape), "examples": network.examples, **rounded},
        "cells": [{"network": network.name, **cell} for cell in cells],
    }


def facts_of(J: np.ndarray) -> dict[str, float]:
    """Trace, effective rank, and the ratio of the errors of reverse and forward traces with sign probes.

    The variance of a sample is 2(‖K‖_F² − Σ K_ii²) in reverse and 2(‖K‖_F² − Σ G_jj²) in forward mode, G = JᵀJ.
    """
    K = J @ J.T if J.shape[0] <= J.shape[1] else J.T @ J
    square = float(np.sum(K**2))
    rows, columns = (float(np.sum(np.sum(J**2, axis=axis) ** 2)) for axis in (1, 0))
    trace = float(np.trace(K))
    ratio = ((square - rows) / (square - columns)) ** 0.5
    return {"trace": trace, "effective_rank": trace**2 / square, "reverse / forward": ratio}


def _cell(J: Any, quantity: str, budget: int, method: str, seeds: int, truth: float) -> dict[str, Any]:
    """Signed relative errors of all seeds, and what was chosen how often."""
    cell: dict[str, Any] = {"quantity": quantity, "passes": budget, "method": method}
    estimate = getattr(ntkest, quantity)
    try:
        runs = [estimate(J, method=method, passes=budget, seed=seed) for seed in range(seeds)]
    except InvalidValueError as error:  # too few passes for this method
        return {**cell, "cannot": str(error)}
    cell["used"] = max(run.passes for run in runs)
    cell["errors"] = [_digits(float(run) / truth - 1) for run in runs]
    if method == "auto":
        cell["chose"] = dict(Counter(run.method for run in runs).most_common())
    return cell


def _digits(number: float) -> float:
    return float(f"{number:.3g}")


def write(found: dict[str, Any], file: Path) -> None:
    """JSON with a line a cell, replaced at once."""
    head = json.dumps({key: value for key, value in found.items() if key != "cells"}, indent=1).removesuffix("\n}")
    body = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in found["cells"])
    part = file.with_suffix(".part")
    part.write_text(f'{head},\n "cells": [\n{body}\n ]\n}}\n', encoding="utf-8")
    part.replace(file)
