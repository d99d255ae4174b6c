"""What a framework's runs spend outside AD passes: ``python -m benchmarks.overhead_worker FRAMEWORK``. Prints JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import ntkest
from ntkest.estimators import ESTIMATORS
from ntkest.estimators.problem import Counted

from .worker import threads, versions

CASES = ("mlp", "gru")
QUANTITIES = ("trace", "effective_rank")
METHODS = ("reverse", "forward", "hutch++", "nystrom++", "xnystrace", "xtrace", "xtrace-power", "auto")
BUDGETS = (32, 128)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=("torch", "jax"))
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    if options.framework == "torch":
        importlib.import_module("torch").set_num_threads(options.threads)
    watch = Stopwatch(options.framework)
    cells = [cell for case in CASES for cell in measured(watch, options.framework, case, options.runs)]
    print(json.dumps({"cells": cells, "versions": versions(options.framework), "threads": threads(options.framework)}))


class Stopwatch:
    """Seconds inside the maps over probes, and of drawing probes: from the call until what it returns is there."""

    def __init__(self, framework: str) -> None:
        self.inside = self.drawing = 0.0
        ready = importlib.import_module("jax").block_until_ready if framework == "jax" else lambda result: result
        for name in ("map_jvp", "map_vjp"):
            setattr(Counted, name, self._timed("inside", getattr(Counted, name), ready))
        for kind in {type(estimator) for estimator in ESTIMATORS.values()}:
            owner: Any = next(base for base in kind.__mro__ if "draw" in vars(base))
            if not hasattr(owner.draw, "timed"):
                owner.draw = self._timed("drawing", owner.draw, ready)

    def _timed(self, what: str, method: Callable[..., Any], ready: Callable[[Any], Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = ready(method(*arguments, **keywords))
            setattr(self, what, getattr(self, what) + time.perf_counter() - start)
            return result

        timed.timed = True  # type: ignore[attr-defined]
        return timed


class AsItIs:
    """A linearization without its compact form."""

    def __init__(self, J: Any) -> None:
        self._J = J

    def __getattr__(self, name: str) -> Any:
        if name == "compact":
            raise AttributeError(name)
        return getattr(self._J, name)


def measured(watch: Stopwatch, framework: str, case: str, runs: int) -> list[dict[str, Any]]:
    """A cell a quantity, method and budget: seconds of each run, and those of them inside AD passes.

    Where the model has a compact form, runs through it and through the model as it is take turns.
    """
    J = linearized(framework, case)
    small = J.compact is not J
    cells = []
    for quantity in QUANTITIES:
        for method in METHODS:
            for passes in BUDGETS:
                print(f"{framework}, {case}, {quantity}, {method}, {passes} ...", file=sys.stderr, flush=True)
                total, inside, drawing, whole, spent = [], [], [], [], 0
                for run in range(runs + 1):
                    watch.inside, watch.drawing, start = 0.0, 0.0, time.perf_counter()
                    estimate = getattr(ntkest, quantity)(J, method=method, passes=passes, seed=run)
                    float(estimate.value), float(estimate.std_error)
                    if run:  # the first compiles
                        total.append(time.perf_counter() - start)
                        inside.append(watch.inside)
                        drawing.append(watch.drawing)
                        spent = estimate.passes
                    if small:
                        start = time.perf_counter()
                        float(getattr(ntkest, quantity)(AsItIs(J), method=method, passes=passes, seed=run).std_error)
                        whole += [time.perf_counter() - start] if run else []
                where = {"framework": framework, "case": case, "quantity": quantity, "method": method}
                times = {"seconds": total, "inside": inside, "drawing": drawing, "whole": whole}
                cells.append({**where, "passes": spent, "budget": passes, **times})
    return cells


def linearized(framework: str, case: str) -> Any:
    """The model of the benchmark of passes, as one whose examples are not known: for passes that all models have."""
    model = importlib.import_module(f".models_{framework}", __package__).MODELS[case]()
    if framework == "torch":
        return ntkest.linearize(model.module, model.x, output=model.output, batch_axis=None)
    return ntkest.linearize(model.function, model.params, model.x, batch_axis=None)


if __name__ == "__main__":
    main()
