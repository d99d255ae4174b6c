"""One step of the benchmark of the pipeline in a process of its own, so that its memory can be told.

``python -m benchmarks.pipeline_worker '{"work": "train", ...}'`` prints a JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ntkest
from ntkest.distilled.compression import chosen
from ntkest.distilled.decomposition import decompose
from ntkest.distilled.local_global import compress, global_eigenvectors
from ntkest.distilled.metrics import evaluate
from ntkest.distilled.prediction import class_ridge

from . import pipeline_data
from .pipeline_network import ResNet, trained

MEBIBYTE = 2**20


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Train or distill, as the task says."""
    torch.set_num_threads(task["threads"])
    return {"train": train, "distill": distill}[task["work"]](task)


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Weights are written to a file, with how they were had; those that are there already are taken."""
    file, made = Path(task["weights"]), {name: task[name] for name in ("drawn", "held", "widths", "epochs")}
    if file.exists():
        kept = torch.load(file)
        if kept["made"] != made:
            raise SystemExit(f"{file} was made with {kept['made']}, not {made}; name another file")
        return dict(kept["found"])
    (images, labels), (there, truth) = pipeline_data.images(task["drawn"], task["held"])
    began = time.perf_counter()
    model = trained(images, labels, task["epochs"], tuple(task["widths"]))
    seconds = time.perf_counter() - began
    found = {
        "seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train": _right(model, images, labels),
        "held": _right(model, there, truth),
    }
    part = file.with_suffix(".part")
    torch.save({"made": made, "found": found, "state": model.state_dict()}, part)
    part.replace(file)
    return found


def distill(task: dict[str, Any]) -> dict[str, Any]:
    """The pipeline, timed step by step; and other compressions of the same features, which are not."""
    (images, labels), (there, truth) = (
        tuple(torch.from_numpy(a) for a in part) for part in pipeline_data.images(task["drawn"], task["held"])
    )
    images, labels = images[: task["train"]].clone(), labels[: task["train"]].clone()
    model = ResNet(tuple(task["widths"]))
    model.load_state_dict(torch.load(task["weights"])["state"])
    model.eval().requires_grad_(True)
    steps: list[dict[str, Any]] = []
    before, finished = _peak(), list[float]()
    call = partial(
        ntkest.distill,
        model,
        images,
        labels=labels,
        dim=task["dim"],
        kind=task["kind"],
        size=task["size"],
        memory=task["memory"],
        out=Path(task["folder"], "features.zarr"),
        progress=lambda done, pieces: finished.append(time.perf_counter()),
    )
    began = time.perf_counter()
    distilled = _timed(steps, "distill", call)
    projected = finished[-1] - began
    scores = _timed(steps, "metrics", lambda: distilled.metrics(there, truth))
    analysis = _timed(steps, "analysis", lambda: distilled.analysis)
    return {
        "before_mebibytes": before,
        "steps": steps,
        "projection_seconds": projected,
        "kinds": dict(Counter(distilled.compression.kinds)),
        "ledger": distilled.ledger.to_dict(),
        "scores": scores.to_dict(),
        "analysis": analysis.to_dict(),
        "ridge": distilled.ridge,
        **_others(task, model, images, distilled.project(there), there, truth),
    }


def _timed(steps: list[dict[str, Any]], name: str, call: Callable[[], Any]) -> Any:
    began, busy = time.perf_counter(), time.process_time()
    found = call()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    steps.append({"name": name, "seconds": seconds, "processor_seconds": busy, "peak_mebibytes": _peak()})
    return found


def _others(
    task: dict[str, Any], model: ResNet, images: torch.Tensor, seen: Any, there: torch.Tensor, truth: torch.Tensor
) -> dict[str, Any]:
    """Fidelity and more without compression, and by compression and size, with the stored features of the images."""
    batches = list(images.split(64))
    J = ntkest.linearize_batches(model, batches)
    store = ntkest.project(J, task["dim"], kind=task["kind"], out=Path(task["folder"], "features.zarr"))
    features = torch.from_numpy(store[...])
    with torch.no_grad():
        said, wanted = torch.cat([model(batch) for batch in batches]), model(there)
    parts, order = decompose(features), np.random.default_rng(0).permutation(len(images))
    rows = []
    for size in (n for n in task["others"] if n <= len(images)):
        ways = {
            "local-global": compress(parts, size),
            "global": global_eigenvectors(parts, size),
            "uniform": chosen(len(images), order[:size]),
        }
        for name, combined in ways.items():
            predicted = class_ridge(*combined.apply(features, said)).predict(seen)
            found = evaluate(predicted, wanted, truth).to_dict()
            rows.append({"compression": name, "size": combined.size, **found})
    whole = evaluate(class_ridge(features, said).predict(seen), wanted, truth)
    return {"uncompressed": whole.to_dict(), "compressions": rows}


def _right(model: ResNet, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        said = torch.cat([model(batch).argmax(1) for batch in torch.from_numpy(images).split(500)])
    return float((said.numpy() == labels).mean())


def _peak() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(perform(json.loads(sys.argv[1]))))
