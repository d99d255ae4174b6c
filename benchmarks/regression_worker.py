"""One kernel of one network in a process of its own, so that its memory can be told; called by `regression`.

``python -m benchmarks.regression_worker '{"framework": "torch", ...}'`` prints a JSON object.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import ntkest
from ntkest.linearization import host

from . import regression_data as data

MEBIBYTE = 2**20


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Train, or compute a kernel and predict with it, as the task says."""
    network = importlib.import_module(f".regression_{task['framework']}", __package__)
    images, labels = data.digits()
    work = {"train": _train, "kernel": _kernel}[task["work"]]
    return work(network, task, images[: task["images"]], labels[: task["images"]])


def _train(network: Any, task: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Weights before and after are written to a file."""
    count, start = task["train"], data.initial()
    began = time.perf_counter()
    trained = network.train(start, images[:count], data.targets(labels[:count]), task["epochs"])
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"seconds": seconds}
    for point, params in (("initial", start), ("trained", trained)):
        np.savez(_weights(task, point), **params)
        outputs = host(network.linearization(params, images).outputs)
        right = outputs.argmax(axis=1) == labels
        found[point] = {"train": float(right[:count].mean()), "test": float(right[count:].mean())}
    return found


def _kernel(network: Any, task: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """A kernel by `ntkest.ntk` in float32, and regression with it in float64 by NumPy for both frameworks."""
    count, outputs = task["train"], task["outputs"]
    with np.load(_weights(task, task["point"])) as stored:
        params = dict(stored)
    here, there = network.linearization(params, images[:count]), network.linearization(params, images[count:])
    ntkest.ntk(network.linearization(params, images[:8]), outputs=outputs)  # imports and first allocations
    resident = _resident()
    began = time.perf_counter()
    with _Peak() as peak:
        K, cross = ntkest.ntk(here, outputs=outputs), ntkest.ntk(there, here, outputs=outputs)
        K, cross = host(K), host(cross)
    seconds = time.perf_counter() - began

    began = time.perf_counter()
    start, start_there = host(here.outputs), host(there.outputs)
    aims = data.targets(labels[:count])
    ridge = task["ridge"] if outputs == "full" else "loo"
    fit = ntkest.predict.kernel_ridge(K, aims, ridge)
    found = {"kernel": fit.predict(cross), "from the network": start_there}
    change = fit if outputs == "full" else ntkest.predict.kernel_ridge(K, aims - start, ridge)
    alpha = change.solve(aims - start)
    found["from the network"] = start_there + (cross @ alpha.reshape(cross.shape[1], -1)).reshape(start_there.shape)
    accuracy = {name: float((f.argmax(axis=1) == labels[count:]).mean()) for name, f in found.items()}
    left_out = None if outputs == "full" else fit.left_out().accuracy
    return {
        "kernel_seconds": seconds,
        "kernel_mebibytes": (peak.highest - resident) / MEBIBYTE,
        "entries_mebibytes": (K.nbytes + cross.nbytes) / MEBIBYTE,
        "regression_seconds": time.perf_counter() - began,
        "process_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ridge": fit.ridge,
        "diagonal": float(np.diagonal(K).mean()),
        "accuracy": accuracy,
        "left_out_accuracy": left_out,
        "mean_squared_error": float(np.mean((found["kernel"] - data.targets(labels[count:])) ** 2)),
    }


def _weights(task: dict[str, Any], point: str) -> Path:
    return Path(task["folder"], f"{task['framework']}-{point}.npz")


class _Peak:
    """The largest resident size while it is entered, seen every hundredth of a second."""

    def __enter__(self) -> _Peak:
        self.highest, self._over = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.highest = max(self.highest, _resident())

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.highest = max(self.highest, _resident())


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(perform(json.loads(sys.argv[1]))))
