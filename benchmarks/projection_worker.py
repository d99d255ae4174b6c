"""One contestant of the benchmark of projections, in a process of its own; see `kernels_worker`.

``python -m benchmarks.projection_worker MODULE CONTESTANT KIND:DIM FILE FRAMEWORK THREADS BYTES``
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .gemm import PRODUCTS
from .kernels_worker import PRODUCT, Memory, begin, serve
from .timing import repeats_for, seconds


def main() -> None:
    module, name, what, file, framework, threads, most = sys.argv[1:]
    answers = begin(framework, int(threads), int(most))
    library = importlib.import_module(f".{module}", __package__)
    kind, _, dim = what.partition(":")
    worker = Worker(library.contestants()[name], Path(file), kind, int(dim), PRODUCTS[framework]())
    serve(worker, library.PACKAGES, answers)


class Worker:
    """The requests."""

    def __init__(self, make: Callable[..., Any], file: Path, kind: str, dim: int, gemm: Callable[[int], None]) -> None:
        self.make, self.kind, self.dim, self.gemm = make, kind, dim, gemm
        gradients = np.load(file, mmap_mode="c")  # one copy in memory for all contestants
        gradients.sum()  # which is there from now on
        self.gradients = importlib.import_module("torch").from_numpy(gradients)
        gemm(0)

    def prepare(self, file: str) -> dict[str, float]:
        """Seconds and bytes of the projector and its first features, which go to a file."""
        memory, start = Memory(), time.perf_counter()
        self.call = self.make(self.gradients.shape[1], self.dim, self.kind)
        found = self.call(self.gradients)
        answer = {"first": time.perf_counter() - start, "bytes": memory.taken()}
        np.save(file, np.asarray(found))
        return answer

    def sample(self) -> dict[str, float]:
        """Seconds of a call, and of a product of matrices before and after it."""
        product = repeats_for(PRODUCT)
        before = seconds(self.gemm, product, 0)
        mine = seconds(lambda _: self.call(self.gradients), 1, 0)
        return {"seconds": mine, "gemm": (before + seconds(self.gemm, product, 0)) / 2}


if __name__ == "__main__":
    main()
