"""How near pNTK and the trace kernel come to the full NTK as a network grows wide.

``python -m benchmarks width`` writes docs/benchmarks/width.json, the figure width.svg and the page width.md.

MLP 784-n-n-10 without biases by He's initialisation, 48 points on a sphere, float64. A kernel k between examples
stands for k ⊗ I; it is held against the full kernel K by the relative Frobenius error, by the largest eigenvalue and
the condition number, and by the predictions of kernel regression at 16 other points.

Reference: Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel",
ICML 2023, sections 4 and 5.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ntkest

from . import width_page
from .contest_worker import digits
from .passes import machine
from .worker import versions

INPUTS, OUTPUTS, POINTS, OTHERS = 784, 10, 48, 16
WIDTHS = (64, 128, 256, 512, 1024, 2048)
KERNELS = ("pntk", "trace")


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file, the figure and the page."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks width", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), help="n (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="networks of each width (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    options = parser.parse_args(given)
    if min(options.seeds, *options.widths) < 1 or len(set(options.widths)) < 2:
        parser.error("--seeds takes a positive number, --widths two of them or more")
    found = {
        "benchmark": "width",
        "command": shlex.join(["python", "-m", "benchmarks", "width", *given]),
        "machine": machine(),
        "versions": versions("torch"),
        "seeds": options.seeds,
        "cells": [
            {"width": width, "seed": seed, **measured(width, seed)}
            for width in sorted(set(options.widths))
            for seed in range(options.seeds)
        ],
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "width.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    width_page.draw(found, options.folder / "width.svg")
    (options.folder / "width.md").write_text(width_page.markdown(found), encoding="utf-8")
    print(f"wrote {options.folder / 'width.md'}")


def measured(width: int, seed: int) -> dict[str, Any]:
    """What pNTK and the trace kernel of one network are off by."""
    draw = np.random.default_rng(seed)
    points = draw.standard_normal((POINTS + OTHERS, INPUTS))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    targets = np.eye(OUTPUTS)[draw.integers(OUTPUTS, size=POINTS)] - 1 / OUTPUTS
    known, other = (ntkest.linearize(network(width, seed), torch.tensor(x)) for x in np.split(points, [POINTS]))
    full, across = ntkest.ntk(known).numpy(), ntkest.ntk(other, known).numpy()
    layers = ntkest.ntk(known, by="layer")
    found: dict[str, Any] = {}
    for name in KERNELS:
        small, small_across = (kernel(name, *sides) for sides in ((known,), (other, known)))
        parts = kernel(name, known, by="layer")
        found[name] = compared(full, across, small, small_across, targets)
        found[name]["layers"] = [error(parts[layer], np.asarray(K)) for layer, K in layers.items()]
    return found


def kernel(name: str, *sides: Any, by: str | None = None) -> Any:
    """Between examples; a dict of them with `by`."""
    made = ntkest.pntk(*sides, by=by) if name == "pntk" else ntkest.ntk(*sides, outputs="trace", by=by)
    return made.numpy() if by is None else {layer: part.numpy() for layer, part in made.items()}


def network(width: int, seed: int) -> torch.nn.Module:
    """In float64."""
    torch.manual_seed(seed)
    sizes = (INPUTS, width, width, OUTPUTS)
    layers: list[torch.nn.Module] = []
    for p, q in pairwise(sizes):
        layer = torch.nn.Linear(p, q, bias=False, dtype=torch.float64)
        torch.nn.init.kaiming_normal_(layer.weight)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def compared(
    K: np.ndarray, K_across: np.ndarray, k: np.ndarray, k_across: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """K (N·O, N·O), O fastest, against k ⊗ I of k (N, N): by definition, each in a line.

    Ratios are those of k to K. Predictions are those of regression without a ridge at the other points.
    """
    values, wanted = np.linalg.eigvalsh(k), np.linalg.eigvalsh(K)
    by_full = (K_across @ np.linalg.solve(K, targets.ravel())).reshape(-1, targets.shape[1])
    by_small = k_across @ np.linalg.solve(k, targets)
    return {
        "error": error(k, K),
        "largest": digits(values[-1] / wanted[-1]),
        "condition": digits((values[-1] / values[0]) / (wanted[-1] / wanted[0])),
        "prediction": digits(np.linalg.norm(by_small - by_full) / np.linalg.norm(by_full)),
    }


def error(k: np.ndarray, K: np.ndarray) -> float:
    """‖k ⊗ I - K‖_F / ‖K‖_F."""
    return digits(np.linalg.norm(np.kron(k, np.eye(len(K) // len(k))) - K) / np.linalg.norm(K))
