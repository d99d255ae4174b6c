"""One network and seed of the benchmark of distillation, in a process of its own; called by `distilled`.

``python -m benchmarks.distilled_worker '{"network": "MLP", "seed": 0, ...}'`` prints a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch

from . import distilled_gradients, distilled_networks, distilled_points
from .distilled_settings import CLASSES


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Train, distil, and judge by the images held out."""
    began, network, seed = time.perf_counter(), task["network"], task["seed"]
    digits = distilled_networks.digits(network, seed, task["images"])
    model = distilled_networks.fresh(network, seed)
    distilled_networks.train(model, digits.images, digits.labels, task["epochs"], seed)
    each = task["points"] // CLASSES
    labels, draw = digits.labels.numpy(), np.random.default_rng([seed, 3])
    members = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    points = np.concatenate([draw.choice(own, each, replace=False) for own in members])
    return {
        "network": network,
        "seed": seed,
        "train": len(digits.labels),
        "held": len(digits.held_labels),
        "parameters": sum(p.numel() for p in model.parameters()),
        "teacher": {
            "train": distilled_networks.rate_of(model, digits.images, digits.labels),
            "held": distilled_networks.rate_of(model, digits.held_images, digits.held_labels),
        },
        **distilled_gradients.measured(model, digits, points, task, seed),
        **(distilled_points.measured(network, model, digits, task, seed) if seed < task["stages"] else {}),
        "seconds": time.perf_counter() - began,
    }


def rounded(found: Any) -> Any:
    """The same with floating-point numbers of six digits."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.6g}") if isinstance(found, float) else found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(rounded(perform(json.loads(sys.argv[1]))), allow_nan=False))
