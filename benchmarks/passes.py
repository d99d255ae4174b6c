"""The benchmark of passes: traces through ntkest against the best hand-written form, import, start and compilations."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cases import CASES, PASSES
from .cores import available, pinned
from .first_result import BACKENDS
from .gemm import PRODUCTS

IMPORTS = ("numpy", "scipy", "ntkest", "torch", "jax")
ROOT = Path(__file__).parent.parent
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measure(
    frameworks: Sequence[str], cases: Sequence[str], pairs: int, rounds: int, starts: int, threads: int, command: str
) -> dict[str, Any]:
    """Run everything, each framework in a process of its own; the result is ready for JSON."""
    arguments = ["--pairs", str(pairs), "--rounds", str(rounds), "--threads", str(threads)]
    arguments += [word for case in cases for word in ("--case", case)]
    found = {name: child(threads, "-m", "benchmarks.worker", name, *arguments) for name in frameworks}
    return {
        "command": command,
        "pairs": pairs,
        "passes": PASSES,
        "machine": machine(),
        "frameworks": {name: {key: part[key] for key in ("versions", "threads")} for name, part in found.items()},
        "results": [result for part in found.values() for result in part["results"]],
        "imports": {name: _imports(name, starts, threads) for name in IMPORTS if starts and _present(name, frameworks)},
        "first_result": {
            name: [child(threads, "-m", "benchmarks.first_result", name) for _ in range(starts)]
            for name in BACKENDS
            if starts and (name == "numpy" or name in frameworks)
        },
        "compilations": child(threads, "-m", "benchmarks.compilations") if "jax" in frameworks else None,
    }


def machine() -> dict[str, Any]:
    """The processor and the system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    return {
        "processor": fields.get("model name", platform.processor()),
        "family": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": os.getloadavg(),
    }


def _present(name: str, frameworks: Sequence[str]) -> bool:
    return name not in PRODUCTS or name in frameworks


def _imports(name: str, starts: int, threads: int) -> list[float]:
    script = f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"
    child(threads, "-c", script)  # its files come from the disk only once
    return [child(threads, "-c", script) for _ in range(starts)]


def child(threads: int, *arguments: str) -> Any:
    """What ``python *arguments`` prints last, as JSON, when it may use so many threads and keep its byte code."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env = {**kept, **dict.fromkeys(POOLS, str(threads)), "JAX_PLATFORMS": "cpu"}
    with pinned(available()[:threads]):
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with status {process.returncode}")
    return json.loads(printed.splitlines()[-1])


__all__ = ["CASES", "measure"]
