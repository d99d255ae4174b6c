"""All cases of one framework, in a process of their own: ``python -m benchmarks.worker FRAMEWORK``. Prints JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

from .cases import CASES, MODES, PASSES
from .gemm import FLOPS, PRODUCTS
from .timing import interleave, race

APART = 6.0
"""Standard errors between our trace and another by which one of them is taken to be wrong."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=sorted(PRODUCTS))
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--case", choices=sorted(CASES), action="append", default=None)
    options = parser.parse_args()
    print(json.dumps(run(options.framework, options.case or list(CASES), options)))


def run(framework: str, cases: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Results of the cases, by mode, and what they ran on."""
    models = importlib.import_module(f".models_{framework}", __package__)
    by_hand = importlib.import_module(f".by_hand_{framework}", __package__)
    if framework == "torch":
        importlib.import_module("torch").set_num_threads(options.threads)
    gemm = PRODUCTS[framework]()
    results = []
    for name in cases:
        model = models.MODELS[name]()
        for mode in MODES:
            print(f"{framework}, {name}, {mode} ...", file=sys.stderr, flush=True)
            mine, chunk = ours(framework, model, mode)
            contestants = by_hand.contestants(model, mode)
            found = race(contestants, options.rounds)
            values = check(mine, contestants, list(found["seconds"]))
            calls = {"ours": mine, "by_hand": contestants[found["winner"]], "gemm": gemm}
            results.append(
                {
                    "framework": framework,
                    "case": name,
                    "mode": mode,
                    "chunk": chunk,
                    "race": found,
                    "values": values,
                    "flops": PASSES * CASES[name].pass_flops,
                    "gemm_flops": FLOPS,
                    "samples": interleave(calls, options.pairs),
                }
            )
    return {"results": results, "versions": versions(framework), "threads": threads(framework)}


def ours(framework: str, model: Any, mode: str) -> tuple[Callable[[int], tuple[float, float]], int]:
    """The call of a user who has J and wants estimates with ever new seeds, and the chunk that it uses."""
    import ntkest

    if framework == "torch":
        J = ntkest.linearize(model.module, model.x, output=model.output)
    else:
        J = ntkest.linearize(model.function, model.params, model.x)

    def call(seed: int) -> tuple[float, float]:
        estimate = ntkest.trace(J, method=mode, passes=PASSES, seed=seed)
        return float(estimate.value), float(estimate.std_error)

    return call, J.chunk_size("vjp" if mode == "reverse" else "jvp", PASSES)


def check(mine: Callable[..., Any], contestants: dict[str, Any], names: list[str]) -> dict[str, list[float]]:
    """Trace and standard error of everybody; refuses to go on if one is wrong."""
    values = {name: list(call(0)) for name, call in {"ours": mine, **{n: contestants[n] for n in names}}.items()}
    value, error = values["ours"]
    for name, (other, its) in values.items():
        if not abs(other - value) <= APART * math.hypot(error, its):
            raise SystemExit(f"ours gives {value:.6g} ± {error:.2g}, but {name} gives {other:.6g} ± {its:.2g}")
    largest = max(its for _, its in values.values())
    if not largest <= 4 * statistics.median(its for _, its in values.values()):
        raise SystemExit(f"standard errors disagree: {values}")
    return values


def versions(framework: str) -> dict[str, str]:
    """What took part."""
    names = ["ntkest", "numpy", framework, *(["jaxlib"] if framework == "jax" else [])]
    return {"python": sys.version.split()[0], **{n: importlib.import_module(n).__version__ for n in names}}


def threads(framework: str) -> dict[str, Any]:
    """The threads that this process may use."""
    known = {"cores": len(os.sched_getaffinity(0)), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
    if framework == "torch":
        return {**known, "torch.get_num_threads()": importlib.import_module("torch").get_num_threads()}
    return {**known, "jax": "a pool of the size of the cores that the process may use"}


if __name__ == "__main__":
    main()
