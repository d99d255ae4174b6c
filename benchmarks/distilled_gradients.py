"""The gradient stage of the benchmark of distillation: fidelity against s for every way to combine gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import ntkest
from ntkest.distilled.analysis import containment, kept_variance
from ntkest.distilled.compression import Compression, chosen
from ntkest.distilled.decomposition import Decomposition, decompose
from ntkest.distilled.local_global import compress, global_eigenvectors
from ntkest.distilled.metrics import conditioning, evaluate
from ntkest.distilled.points.selection import CHOICES, select_by
from ntkest.distilled.prediction import class_ridge, rank_curve
from ntkest.distilled.truncation import data_redundancy

from .distilled_networks import Digits

SELECTIONS = ("uniform", *CHOICES)
VARIANTS: dict[str, dict[str, Any]] = {
    "local-global": {},
    "… raw": {"orthonormal": False},
    "… no gaps": {"coverage_threshold": 0.0},
    "… by labels": {"labels": True},
    "… by labels, no gaps": {"labels": True, "coverage_threshold": 0.0},
}
"""Local-global compression of s gradients, by the options that are not the default."""

VARIANCES = (0.5, 0.8, 0.9, 0.95)
"""τ_v of the compressions whose size is an outcome."""

DRAWS = 5
"""Of each selection, all of which are random."""

RANKS = (1, 2, 3, 5, 10, 20, 40, 80, 160, 320)
CURVES = ("all points", "global", "local-global", "uniform")


def measured(model: Any, digits: Digits, points: np.ndarray, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Rows for one network; `points` are the examples whose gradients are combined."""
    inputs, dim = digits.images[torch.as_tensor(points)], settings["dim"]
    ours, held = (ntkest.linearize(model, x, batch_axis=0) for x in (inputs, digits.held_images))
    features, seen = (ntkest.project(J, dim, seed=seed) for J in (ours, held))
    judge = partial(_judged, features, ours.outputs, seen, held.outputs, digits.held_labels)
    parts = {name: decompose(features, given, seed) for name, given in _clusterings(digits, points).items()}
    spectra = parts["spectral"]
    redundancy = data_redundancy(features)
    rows = []
    for name, size, combined in _all(parts, settings["sizes"], seed):
        rows.append({"method": name, "size": size, **judge(combined), **_spans(spectra, combined)})
    thresholds = []
    for tau in VARIANCES:
        for coverage in ("additive", "best"):
            combined = compress(spectra, variance=tau, coverage=coverage)
            same = global_eigenvectors(spectra, combined.size)
            thresholds.append(
                {
                    "variance": tau,
                    "coverage": coverage,
                    "size": combined.size,
                    "gaps": combined.kinds.count("gap"),
                    **judge(combined),
                    **_spans(spectra, combined),
                    "global": {**judge(same), **_spans(spectra, same)},
                }
            )
    whole = chosen(len(points), np.arange(len(points)))
    return {
        "whole": judge(whole),
        "ranks": redundancy.ranks.tolist(),
        "mean rank": redundancy.mean_rank,
        "pooled rank": redundancy.pooled_rank,
        "containment gap": containment(spectra).gap,
        "compressions": rows,
        "thresholds": thresholds,
        "curves": _curves(spectra, whole, max(settings["sizes"]), (features, ours.outputs), (seen, held.outputs), seed),
    }


def _clusterings(digits: Digits, points: np.ndarray) -> dict[str, Any]:
    return {"spectral": min(10, len(points)), "labels": digits.labels.numpy()[points]}


def _all(parts: dict[str, Decomposition], sizes: list[int], seed: int) -> Iterator[tuple[str, int, Compression]]:
    """Every method at every size; selections several times, blind to labels."""
    K = parts["spectral"].kernel.numpy()
    labels = np.zeros(len(K), dtype=int)
    for size in sizes:
        for method in SELECTIONS:
            for draw in range(DRAWS):
                yield method, size, chosen(len(K), select_by(lambda _: K, size, labels, 1, method, DRAWS * seed + draw))
        yield "global", size, global_eigenvectors(parts["spectral"], size)
        for name, options in VARIANTS.items():
            given = {key: value for key, value in options.items() if key != "labels"}
            yield name, size, compress(parts["labels" if options.get("labels") else "spectral"], size, **given)


def _spans(parts: Decomposition, combined: Compression) -> dict[str, float | None]:
    """The share of tr K̄ in the span, and the variance of global eigenvectors that local ones do not cover."""
    gap = None
    if combined.coverage is not None and len(combined.coverage):
        values = parts.values[: len(combined.coverage)]
        gap = float(values @ (1 - combined.coverage) / values.sum())
    return {"kept": kept_variance(parts, combined), "coverage gap": gap}


def _judged(
    features: torch.Tensor,
    outputs: torch.Tensor,
    seen: torch.Tensor,
    truth: torch.Tensor,
    labels: torch.Tensor,
    combined: Compression,
) -> dict[str, float | None]:
    """What regression on the combinations predicts on images held out, and how well posed it is."""
    made, aims = combined.apply(features, outputs)
    scores = evaluate(class_ridge(made, aims).predict(seen), truth, labels)
    kernels = conditioning(made.double())
    scale = (made.double() ** 2).sum(2).mean(0).numpy()
    condition = float(np.median(kernels.condition_numbers))
    return {
        "fidelity": scores.fidelity,
        "accuracy": scores.accuracy or 0.0,
        "logit_mse": scores.logit_mse,
        "condition": condition if np.isfinite(condition) else None,
        "smallest": float(np.median(kernels.smallest / scale)),
    }


def _curves(
    parts: Decomposition, whole: Compression, size: int, ours: tuple[Any, Any], held: tuple[Any, Any], seed: int
) -> list[dict[str, Any]]:
    """The predictor of rank r from all points, and from s combinations of them."""
    count = len(parts.values)
    made = {
        "all points": whole,
        "global": global_eigenvectors(parts, size),
        "local-global": compress(parts, size),
        "uniform": chosen(count, np.random.default_rng(seed).choice(count, size, replace=False)),
    }
    rows = []
    for name, combined in made.items():
        synthetic, aims = combined.apply(*ours)
        ranks = [r for r in RANKS if r < combined.size] + [min(combined.size, synthetic.shape[2])]
        for rank, fit in zip(ranks, rank_curve(synthetic, aims, ranks), strict=True):
            scores = evaluate(fit.predict(held[0]), held[1])
            rows.append({"of": name, "rank": rank, "fidelity": scores.fidelity, "logit_mse": scores.logit_mse})
    return rows
