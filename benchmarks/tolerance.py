"""Tolerances: how many runs end within the one that was asked for, and what they spend beside the least that would do.

``python -m benchmarks tolerance`` writes docs/benchmarks/tolerance.json and the page tolerance.md beside it. It needs
autograd and scikit-learn for the Jacobians of trained networks (``python -m pip install ".[app]"``), and for spectra
nothing but NumPy and SciPy.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import ntkest
from ntkest.linearization import InvalidValueError

from . import tolerance_page
from .contest import QUANTITIES
from .contest_worker import digits, versions
from .operators import HELD_OUT, NAMES, NETWORKS, Operator, operator
from .passes import POOLS, ROOT, machine
from .peers_ntkest import PACKAGES

AUTO, NAMED = "auto", ("xnystrace", "xtrace", "reverse")
"""Methods that are run to the tolerance."""

FIXED = ("xnystrace", "reverse", "hutch++", "xtrace", "xtrace-power")
"""Methods among which the least fixed cost is sought, beside exact passes."""

SHARE = 0.95
"""The share of fixed runs that must end within the tolerance."""

GLANCE = 5
"""Runs of a named method after which it is given up if none of them has reached the tolerance."""

FEWEST = 4
"""Passes below which no method has a value and an error bar."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file and the page that shows it."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks tolerance", description=__doc__)
    parser.add_argument("--rtol", type=float, default=0.02, help="the tolerance (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=200, help="runs of auto and of fixed costs (default: %(default)s)")
    parser.add_argument("--named", type=int, default=20, help="runs of each named method (default: %(default)s)")
    parser.add_argument("--size", type=int, default=500, help="outputs of the operators (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="these operators")
    parser.add_argument("--keep", action="store_true", help="with --only: other operators from the JSON file")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of a thread each (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/contest"), help="Jacobians of trained networks")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--render", action="store_true", help="only write the page again, from the JSON file")
    options = parser.parse_args(given)
    if min(options.seeds, options.jobs) < 1 or options.named < 0 or options.size <= 60 or not options.rtol > 0:
        parser.error("--seeds, --jobs and --rtol take positive numbers, --named one that is not negative, --size > 60")
    data, page = options.folder / "tolerance.json", options.folder / "tolerance.md"
    if not options.render:
        found = {"benchmark": "tolerance", "command": shlex.join(["python", "-m", "benchmarks", "tolerance", *given])}
        found |= measured(options)
        if options.keep:
            found = _beside(found, json.loads(data.read_text(encoding="utf-8")))
        options.folder.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join(json.dumps(cell) for cell in found.pop("cells"))
        head = json.dumps(found, indent=1).removesuffix("\n}")
        data.write_text(f'{head},\n "cells": [\n{rows}\n ]\n}}\n', encoding="utf-8")
    page.write_text(tolerance_page.markdown(json.loads(data.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"wrote {page}")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All cells, an operator a task, in processes with one thread."""
    os.environ.update(dict.fromkeys(POOLS, "1"))  # before they start
    names = [name for name in NAMES if not options.only or name in options.only]
    if set(names) & set(NETWORKS):
        work = str(options.work.resolve())
        subprocess.run([sys.executable, "-m", "benchmarks.trained", work], cwd=ROOT, check=True)
    task = functools.partial(
        _operator_cells,
        size=options.size,
        folder=options.work,
        rtol=options.rtol,
        seeds=options.seeds,
        named=options.named,
    )
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(task, names))
    return {
        "rtol": options.rtol,
        "share": SHARE,
        "seeds": options.seeds,
        "named": options.named,
        "size": options.size,
        "held_out": [name for name in names if name in HELD_OUT],
        "seconds": round(sum(seconds for _, seconds in parts)),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "cells": [cell for cells, _ in parts for cell in cells],
    }


def _beside(found: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What was found, and the operators that were measured before and not now."""
    for key in ("rtol", "seeds", "named", "size"):
        if before[key] != found[key]:
            raise SystemExit(f"--keep: the file's {key} is {before[key]}, and not {found[key]}")
    again = {cell["operator"] for cell in found["cells"]}
    cells = [*found["cells"], *(cell for cell in before["cells"] if cell["operator"] not in again)]
    place = {name: number for number, name in enumerate(NAMES)}
    return found | {
        "command": f"{before['command']}; {found['command']}",
        "held_out": [name for name in HELD_OUT if any(cell["operator"] == name for cell in cells)],
        "seconds": before["seconds"] + found["seconds"],
        "cells": sorted(cells, key=lambda cell: place[cell["operator"]]),
    }


def _operator_cells(
    name: str, size: int, folder: Path, rtol: float, seeds: int, named: int
) -> tuple[list[dict[str, Any]], float]:
    """The cells of one operator, and the processor's seconds that they took."""
    start, subject, cells = time.process_time(), operator(name, size, folder), []
    for quantity in QUANTITIES:
        where = {"operator": name, "quantity": quantity}
        cells.append({**where, **least(subject, quantity, rtol, seeds)})
        cells.append({**where, **to_tolerance(subject, quantity, AUTO, rtol, seeds)})
        if named:
            cells += [{**where, **to_tolerance(subject, quantity, m, rtol, named)} for m in NAMED]
    seconds = time.process_time() - start
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return cells, seconds


# To a tolerance -------------------------------------------------------------------------------------------------------


def to_tolerance(subject: Operator, quantity: str, method: str, rtol: float, seeds: int) -> dict[str, Any]:
    """What runs to the tolerance come to: the share within it, the share that says so, and passes.

    A named method may spend twice what the exact value costs; where `GLANCE` runs in a row do not get there, it cannot.
    """
    J, truth = ntkest.from_jacobian(subject.jacobian), subject.truth[quantity]
    most = 2 * min(subject.jacobian.shape)
    found = []
    for seed in range(seeds):
        found.append(getattr(ntkest, quantity)(J, method=method, rtol=rtol, seed=seed, max_passes=most))
        if method != AUTO and len(found) == GLANCE and not any(e.converged for e in found):
            break
    errors = np.asarray([float(e) / truth - 1 for e in found])
    passes = np.asarray([e.passes for e in found])
    return {
        "kind": "tolerance",
        "method": method,
        "seeds": len(found),
        "within": float(np.mean(np.abs(errors) <= rtol)),
        "converged": float(np.mean([e.converged for e in found])),
        "rms": digits(float(np.sqrt(np.mean(errors**2)))),
        "bias": digits(float(np.mean(errors))),
        "passes": digits(float(np.mean(passes))),
        "quantiles": [int(q) for q in np.quantile(passes, [0.0, 0.1, 0.5, 0.9, 1.0], method="higher")],
        "ended_as": dict(collections.Counter(e.method for e in found).most_common()),
    }


# The least fixed cost -------------------------------------------------------------------------------------------------


def least(subject: Operator, quantity: str, rtol: float, seeds: int) -> dict[str, Any]:
    """The fewest passes, fixed beforehand, at which some method is within the tolerance in `SHARE` of the runs.

    By bisection for each method, as if the share grew with the passes; a method that is not there with a pass less than
    the best so far is left at that. Where only luck decides, bisection finds a little less than the least.
    """
    J, truth = ntkest.from_jacobian(subject.jacobian), subject.truth[quantity]
    best = {"kind": "least", "method": "exact", "passes": min(subject.jacobian.shape)}
    for method in FIXED:
        # the variable of this turn is bound, not looked up when another one has taken its place
        meets = functools.cache(functools.partial(_meets, J, quantity, method, truth, rtol, seeds))
        passes = _first(meets, FEWEST, best["passes"] - 1, gallop=method == FIXED[0])
        if passes is not None:
            spent = getattr(ntkest, quantity)(J, method=method, passes=passes).passes
            best = {"kind": "least", "method": method, "passes": spent}
    return best


def _meets(J: Any, quantity: str, method: str, truth: float, rtol: float, seeds: int, passes: int) -> bool:
    """Whether enough runs at that cost are within the tolerance; at the first that is one too many, not."""
    left = int((1 - SHARE) * seeds + 1e-9)
    for seed in range(seeds):
        try:
            value = float(getattr(ntkest, quantity)(J, method=method, passes=passes, seed=seed))
        except InvalidValueError:  # too few
            return False
        left -= not abs(value / truth - 1) <= rtol
        if left < 0:
            return False
    return True


def _first(holds: Callable[[int], bool], low: int, high: int, gallop: bool) -> int | None:
    """The least integer in low … high for which `holds`, which once true stays so; None if there is none.

    Upwards in doubling steps: what is too little shows after a few runs, and too much costs all of them. Without
    `gallop` high is looked at first, for it is likely to be too little, too.
    """
    if low > high or (not gallop and not holds(high)):
        return None
    step = low
    while not holds(step):
        if step >= high:
            return None
        low, step = step + 1, min(2 * step, high)
    high = step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
