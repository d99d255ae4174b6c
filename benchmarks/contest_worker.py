"""One library's share of the contest of estimators, in a process of its own.

``python -m benchmarks.contest_worker LIBRARY`` appends a line of JSON to a file for every cell: a method at a budget
on an operator. Cells that the file has already are not measured again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .contest import CannotRunError, Method, Run
from .operators import NAMES, Operator, operator

WARM_UP = 1_000_000
"""The seed of the call that is not counted: it compiles, and shows what a run costs."""

STRESS_SIZE, STRESS_BUDGET, STRESS_SEEDS = 200, 120, 5

Cell = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--operator", choices=NAMES, action="append", default=[])
    parser.add_argument("--stress", action="store_true", help="measure the hard cases, too")
    parser.add_argument("--method", action="append", help="only this; may be repeated")
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--budget", type=int, action="append", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the Jacobians of networks lie")
    parser.add_argument("--file", type=Path, required=True, help="the cells, a line each")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # peers warn of their own choices at every call
    one_thread()
    module = importlib.import_module(f".peers_{options.library}", __package__)
    have = {identity(cell) for cell in read(options.file) if cell["seeds"] >= options.seeds}
    with options.file.open("a", encoding="utf-8") as file:

        def write(cell: Cell) -> None:
            file.write(json.dumps({"library": options.library, **cell}) + "\n")
            file.flush()

        write({"versions": versions(module.PACKAGES), "seeds": 0})
        methods = [m for m in module.methods() if not options.method or m.name in options.method]
        for name in options.operator:
            start = time.perf_counter()
            subject = operator(name, options.size, options.folder)
            for method in methods:
                for budget in options.budget:
                    where = {"operator": name, "size": options.size, "budget": budget}
                    what = {"method": method.name, "quantity": method.quantity}
                    if identity({"library": options.library, **where, **what}) not in have:
                        write({**where, **what, **measured(method, subject, budget, options.seeds)})
            print(f"{options.library}, {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.stress:
            for cell in stressed(methods, module.duplicated()):
                write(cell)
            print(f"{options.library}, hard cases: done", file=sys.stderr, flush=True)


def identity(cell: Cell) -> tuple[Any, ...]:
    """What a cell is about."""
    return tuple(cell.get(key) for key in ("library", "operator", "size", "budget", "method", "quantity", "stress"))


def read(file: Path) -> Iterator[Cell]:
    """The cells of a file; a last line that was cut off is left out."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of the packages that have one."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = getattr(importlib.import_module(package), "__version__", "unknown")
    return found


def one_thread() -> None:
    """Tell torch, which does not listen to all of the environment variables that the others obey."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


# A cell ---------------------------------------------------------------------------------------------------------------


def measured(method: Method, subject: Operator, budget: int, seeds: int) -> Cell:
    """Signed relative errors (null where a run failed), the median of the seconds, passes, and failures."""
    truth = subject.truth[method.quantity]
    try:
        run = method.prepare(subject, budget)
        start = time.perf_counter()
        first = attempt(run, WARM_UP)
        warm = time.perf_counter() - start
    except CannotRunError as reason:
        return {"seeds": seeds, "cannot": str(reason)}
    if first.passes is not None and first.passes > budget:
        return {"seeds": seeds, "cannot": f"takes {first.passes} passes"}
    runs = [attempt(run, seed) for seed in range(seeds)]
    for r in runs:
        if r.passes is not None and r.passes > budget:  # a choice that depends on the seed may do that
            r.value, r.failure = None, f"takes {r.passes} passes"
    failures = [f for f in (r.failure for r in runs) if f]
    return {
        "seeds": seeds,
        "passes": max((r.passes for r in runs if r.passes is not None), default=None),
        "errors": [None if r.value is None else digits(r.value / truth - 1) for r in runs],
        "seconds": digits(statistics.median(r.seconds for r in runs)),
        "first_seconds": digits(warm),
        **({"failures": {f: failures.count(f) for f in sorted(set(failures))}} if failures else {}),
    }


class Attempt:
    """A call: its value and passes, or how it failed, and the seconds that it took."""

    def __init__(self, value: float | None, passes: int | None, failure: str, seconds: float) -> None:
        self.value = value
        self.passes = passes
        self.failure = failure
        self.seconds = seconds


def attempt(run: Run, seed: int) -> Attempt:
    """Call, and catch whatever a library raises: that is a finding, not the end."""
    start = time.perf_counter()
    try:
        value, passes = run(seed)
    except CannotRunError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        return Attempt(None, None, f"{type(error).__name__}: {text[0][:120]}", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if math.isfinite(value):
        return Attempt(value, passes, "", seconds)
    return Attempt(None, passes, "NaN" if math.isnan(value) else "infinite", seconds)


def digits(number: float) -> float:
    return float(f"{number:.3g}")


# Hard cases -----------------------------------------------------------------------------------------------------------


def stressed(methods: list[Method], duplicated: list[Method]) -> Iterator[Cell]:
    """Scaled operators, fewer dimensions than samples, the zero operator, and probes that repeat.

    For the scaled ones the error is that against the same seed on the operator unscaled, as scaling must change
    nothing but the scale; for the others, that against the truth, and for zero the value itself.
    """
    base = operator("exponential", STRESS_SIZE, Path())
    rank = operator("rank-5", STRESS_SIZE, Path())
    axes = Operator("rank-5", np.diag(np.where(np.arange(STRESS_SIZE) < 5, 1.0, 0.0)))
    zero = Operator("zero", np.zeros_like(base.jacobian))
    for method in methods:
        truth = base.truth[method.quantity]
        for factor in (1e-20, 1e20):
            power = 0 if method.quantity == "effective_rank" else 1
            expected = _values(method, base)
            yield _stress(
                method,
                f"scale {factor:g}",
                base.scaled(factor),
                lambda v, e, s=factor**power, t=truth: (v / s - e) / t,
                expected,
            )
        yield _stress(method, "rank 5", rank, lambda v, e, t=rank.truth[method.quantity]: v / t - 1)
        yield _stress(method, "rank 5, zero rows", axes, lambda v, e, t=axes.truth[method.quantity]: v / t - 1)
        yield _stress(method, "zero", zero, lambda v, e: v)
    for method in duplicated:
        yield _stress(method, "probes repeated", base, lambda v, e, t=base.truth[method.quantity]: v / t - 1)


def _values(method: Method, subject: Operator) -> list[float | None]:
    try:
        run = method.prepare(subject, STRESS_BUDGET)
        return [attempt(run, seed).value for seed in range(STRESS_SEEDS)]
    except CannotRunError:
        return [None] * STRESS_SEEDS


def _stress(
    method: Method,
    case: str,
    subject: Operator,
    error: Callable[[float, float], float],
    expected: list[float | None] | None = None,
) -> Cell:
    cell = {"stress": case, "size": STRESS_SIZE, "budget": STRESS_BUDGET, "method": method.name}
    cell |= {"quantity": method.quantity, "seeds": STRESS_SEEDS}
    try:
        run = method.prepare(subject, STRESS_BUDGET)
        runs = [attempt(run, seed) for seed in range(STRESS_SEEDS)]
    except CannotRunError as reason:
        return {**cell, "cannot": str(reason)}
    except Exception as failure:  # a library may refuse the operator itself
        return {**cell, "errors": [None] * STRESS_SEEDS, "failures": {f"{type(failure).__name__}: {failure}"[:140]: 5}}
    pairs = zip(runs, expected or [0.0] * STRESS_SEEDS, strict=True)
    errors = [None if r.value is None or e is None else digits(error(r.value, e)) for r, e in pairs]
    failures = [r.failure for r in runs if r.failure]
    return {**cell, "errors": errors, "failures": {f: failures.count(f) for f in sorted(set(failures))}}


if __name__ == "__main__":
    main()
