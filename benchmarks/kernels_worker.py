"""One contestant of the benchmark of kernels, in a process of its own that does as its parent says, line by line.

``python -m benchmarks.kernels_worker MODULE CONTESTANT KIND FILE FRAMEWORK THREADS BYTES`` reads requests and answers
them, a line of JSON each. `Contestant` is the parent's side.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .gemm import PRODUCTS
from .kernels_networks import read
from .timing import repeats_for, seconds

PRODUCT = 0.02
"""Seconds that a product of matrices takes, roughly."""


def main() -> None:
    module, name, kind, file, framework, threads, most = sys.argv[1:]
    answers = begin(framework, int(threads), int(most))
    library = importlib.import_module(f".{module}", __package__)
    worker = Worker(library.contestants()[name], Path(file), kind, PRODUCTS[framework]())
    serve(worker, library.PACKAGES, answers)


def begin(framework: str, threads: int, most: int) -> TextIO:
    """Keep to so many threads and bytes; where answers go."""
    if sys.platform == "linux":  # who takes more fails here, before others are short of memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    if hasattr(os, "sched_setaffinity"):  # before there is a framework, which counts cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if framework == "torch":
        importlib.import_module("torch").set_num_threads(threads)
    return answers


def serve(worker: Any, packages: Sequence[str], answers: TextIO) -> None:
    """Say which versions there are, and do as the parent says."""
    print(json.dumps({"versions": {package: metadata.version(package) for package in packages}}), file=answers)
    answers.flush()
    for line in sys.stdin:
        what, *words = json.loads(line)
        try:
            answer = getattr(worker, what)(*words)
        except Exception as error:  # that a library cannot do it is a finding
            text = " ".join(str(error).split()) or "no message"
            answer = {"failed": f"{type(error).__name__}: {text[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """The requests."""

    def __init__(self, make: Callable[..., Callable[[], Any]], file: Path, kind: str, gemm: Callable[[int], None]):
        self.make, self.file, self.kind, self.gemm = make, file, kind, gemm
        self.calls: dict[int, Callable[[], Any]] = {}
        self.estimates: dict[int, float] = {}
        gemm(0)

    def prepare(self, examples: int) -> dict[str, float]:
        """Seconds from weights to the first kernel, and seconds and bytes of another one."""
        given = read(self.file, examples)
        start = time.perf_counter()
        call = self.calls[examples] = self.make(given, self.kind)
        call()
        first = time.perf_counter() - start
        memory = Memory()
        start = time.perf_counter()
        found = call()
        again = self.estimates[examples] = time.perf_counter() - start
        taken = memory.taken()
        del found
        return {"first": first, "seconds": again, "bytes": taken}

    def call(self, examples: int) -> Callable[[], Any]:
        """The call, prepared."""
        if examples not in self.estimates:
            self.prepare(examples)
        return self.calls[examples]

    def save(self, examples: int, file: str) -> dict[str, str]:
        """Write the kernel."""
        np.save(file, np.asarray(self.call(examples)(), dtype=np.float64))
        return {}

    def sample(self, examples: int) -> dict[str, float]:
        """Seconds of a call, and of a product of matrices before and after it."""
        call, product = self.call(examples), repeats_for(PRODUCT)
        before = seconds(self.gemm, product, 0)
        mine = seconds(lambda _: call(), repeats_for(self.estimates[examples]), 0)
        return {"seconds": mine, "gemm": (before + seconds(self.gemm, product, 0)) / 2}


class Memory:
    """The most memory that is taken from now on, beyond what is held now."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what is free counts as free
        self.resets = _reset_peak()
        self.before = _status("VmRSS") if self.resets else _peak()

    def taken(self) -> float:
        """Bytes."""
        return (_status("VmHWM") if self.resets else _peak()) - self.before


def _reset_peak() -> bool:
    """Ask the kernel to forget the peak so far; False where it has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> float:
    return 1024.0 * int(re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def _peak() -> float:
    """Bytes at the highest; on macOS the system counts in bytes, elsewhere in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


if __name__ == "__main__":
    main()
