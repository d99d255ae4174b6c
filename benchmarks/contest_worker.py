"""One library's share of the contest of estimators, in a process of its own.

``python -m benchmarks.contest_worker LIBRARY`` appends a line of JSON to a file for every cell: a method at a budget
on an operator. Cells that the file has already are not measured again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .contest import CannotRunError, Method, Run
from .operators import NAMES, Operator, operator

WARM_UP = 1_000_000
"""The seed of the call that is not counted: it compiles, and shows what a run costs."""

PATIENCE = 3.0
"""Seconds that a call may take at most, once compiled: the rest of the field needs a tenth of that at any budget."""

STRESS_SIZE, STRESS_BUDGET, STRESS_SEEDS = 200, 120, 5

Cell = dict[str, Any]
Error = Callable[[float, float], float]
"""The error of a value, given that of the same seed elsewhere."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--operator", choices=NAMES, action="append", default=[])
    parser.add_argument("--stress", action="store_true", help="measure the hard cases, too")
    parser.add_argument("--method", action="append", help="only this; may be repeated")
    parser.add_argument("--quantity", help="only methods for this")
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--budget", type=int, action="append", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the Jacobians of networks lie")
    parser.add_argument("--file", type=Path, required=True, help="the cells, a line each")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # peers warn of their own choices at every call
    os.environ["JAX_ENABLE_X64"] = "1"
    module = importlib.import_module(f".peers_{options.library}", __package__)
    have = {identity(cell) for cell in read(options.file) if cell["seeds"] == options.seeds}
    whole = not options.file.exists() or options.file.read_bytes()[-1:] in (b"", b"\n")
    with options.file.open("a", encoding="utf-8") as file:
        file.write("" if whole else "\n")  # the last line was cut off

        def write(cell: Cell) -> None:
            file.write(json.dumps({"library": options.library, **cell}) + "\n")
            file.flush()

        write({"versions": versions(module.PACKAGES), "seeds": 0})
        methods = [m for m in module.methods() if not options.method or m.name in options.method]
        methods = [m for m in methods if options.quantity in (None, *m.quantities)]
        for name in options.operator:
            start = time.perf_counter()
            subject = operator(name, options.size, options.folder)
            for method in methods:
                for budget in options.budget:
                    where = {"operator": name, "size": options.size, "budget": budget, "method": method.name}
                    given = {} if method.given == "K" else {"given": method.given}
                    cells = [{"library": options.library, **where, "quantity": q, **given} for q in method.quantities]
                    if not {identity(cell) for cell in cells} <= have:
                        seeds = range(options.first_seed, options.first_seed + options.seeds)
                        for cell, found in zip(cells, measured(method, subject, budget, seeds), strict=True):
                            write({**cell, **found})
            print(f"{options.library}, {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.stress:
            for cell in stressed(getattr(module, "separate", module.methods)(), module.duplicated()):
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


# A cell ---------------------------------------------------------------------------------------------------------------


def measured(method: Method, subject: Operator, budget: int, seeds: range) -> list[Cell]:
    """A cell a quantity: signed relative errors (null where a run failed), passes, failures, and median seconds."""
    try:
        run = method.prepare(subject, budget)
        first = attempt(run, WARM_UP)
    except CannotRunError as reason:
        return [{"seeds": len(seeds), "cannot": str(reason)} for _ in method.quantities]
    if first.passes is not None and first.passes > budget:
        return [{"seeds": len(seeds), "cannot": f"takes {first.passes} passes"} for _ in method.quantities]
    runs = [attempt(run, seeds[0])]
    if runs[0].seconds > PATIENCE:
        return [{"seeds": len(seeds), "cannot": f"takes more than {PATIENCE:g} s a call"} for _ in method.quantities]
    runs += [attempt(run, seed) for seed in seeds[1:]]
    for r in runs:
        if r.passes is not None and r.passes > budget:  # a choice that depends on the seed may do that
            r.values, r.failure = None, f"takes {r.passes} passes"
    return [
        {
            "seeds": len(seeds),
            "passes": max((r.passes for r in runs if r.passes is not None), default=None),
            **judged(runs, number, lambda value, _, truth=subject.truth[quantity]: value / truth - 1),
            "seconds": digits(statistics.median(r.seconds for r in runs)),
            "first_seconds": digits(first.seconds),
        }
        for number, quantity in enumerate(method.quantities)
    ]


@dataclass
class Attempt:
    """A call: its values and passes, or how it failed, and the seconds that it took."""

    values: tuple[float, ...] | None
    passes: int | None
    failure: str
    seconds: float


def attempt(run: Run, seed: int) -> Attempt:
    """Call, and catch whatever a library raises: that is a finding, not the end."""
    start = time.perf_counter()
    try:
        values, passes = run(seed)
    except Exception as error:
        if seed == WARM_UP and isinstance(error, CannotRunError):
            raise
        return Attempt(None, None, named(error), time.perf_counter() - start)
    return Attempt(values, passes, "", time.perf_counter() - start)


def named(error: Exception) -> str:
    """Its type and the first line of its message."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:120]}"


def judged(runs: list[Attempt], number: int, error: Error, against: list[Attempt] | None = None) -> Cell:
    """Errors of a quantity, each perhaps against the same run elsewhere, and how many failed in which way."""
    errors: list[float | None] = []
    failures: dict[str, int] = {}
    for r, other in zip(runs, against or runs, strict=True):
        value = None if r.values is None else r.values[number]
        failure = r.failure or ("" if value is None or math.isfinite(value) else "NaN" if math.isnan(value) else "∞")
        if failure:
            failures[failure] = failures.get(failure, 0) + 1
        good = value is not None and not failure and other.values is not None
        errors.append(digits(error(value, other.values[number])) if good else None)
    return {"errors": errors, **({"failures": failures} if failures else {})}


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
        (quantity,) = method.quantities
        expected = _runs(method, base)
        for factor in (1e-20, 1e20):
            scale = 1.0 if quantity == "effective_rank" else factor
            yield _stress(method, f"scale {factor:g}", base.scaled(factor), _against(base, quantity, scale), expected)
        yield _stress(method, "rank 5", rank, _relative(rank, quantity))
        yield _stress(method, "rank 5, zero rows", axes, _relative(axes, quantity))
        yield _stress(method, "zero", zero, lambda value, _: value)
    for method in duplicated:
        yield _stress(method, "probes repeated", base, _relative(base, method.quantities[0]))


def _relative(subject: Operator, quantity: str) -> Error:
    truth = subject.truth[quantity]
    return lambda value, _: value / truth - 1


def _against(subject: Operator, quantity: str, scale: float) -> Error:
    truth = subject.truth[quantity]
    return lambda value, other: (value / scale - other) / truth


def _stress(
    method: Method, case: str, subject: Operator, error: Error, expected: list[Attempt] | str | None = None
) -> Cell:
    cell = {"stress": case, "size": STRESS_SIZE, "budget": STRESS_BUDGET, "method": method.name}
    cell |= {"quantity": method.quantities[0], "seeds": STRESS_SEEDS}
    runs = _runs(method, subject)
    if isinstance(runs, str) or isinstance(expected, str):
        return {**cell, "cannot": runs if isinstance(runs, str) else expected}
    return {**cell, **judged(runs, 0, error, expected)}


def _runs(method: Method, subject: Operator) -> list[Attempt] | str:
    """A run a seed, or why there can be none."""
    try:
        run = method.prepare(subject, STRESS_BUDGET)
        attempt(run, WARM_UP)
        return [attempt(run, seed) for seed in range(STRESS_SEEDS)]
    except CannotRunError as reason:
        return str(reason)
    except Exception as failure:  # a library may refuse the operator itself
        return [Attempt(None, None, named(failure), 0.0)] * STRESS_SEEDS


if __name__ == "__main__":
    main()
