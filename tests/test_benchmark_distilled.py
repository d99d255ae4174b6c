"""The benchmark of distillation: what it judges by, its page from the numbers, and a tiny run."""

import copy
import json
import math

import numpy as np
import pytest

from benchmarks import distilled, distilled_averages, distilled_page

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

METHODS = {"uniform": 0.45, "kmeans": 0.52, "farthest": 0.53, "global": 0.8, "local-global": 0.81}


def judged(fidelity, error=2.0):
    return {"fidelity": fidelity, "accuracy": 0.5, "logit_mse": error, "condition": 40.0, "smallest": 0.1}


def cell(seed, points=True):
    found = {
        "network": "MLP",
        "seed": seed,
        "train": 1000,
        "held": 500,
        "parameters": 9610,
        "teacher": {"train": 1.0, "held": 0.97},
        "whole": judged(0.999),
        "ranks": [11, 12],
        "mean rank": 13,
        "pooled rank": 90,
        "containment gap": 0.125,
        "compressions": [{"method": name, "size": 5, **judged(value + seed / 1e3)} for name, value in METHODS.items()],
        "thresholds": [
            {
                "variance": 0.9,
                "coverage": "additive",
                "size": 5,
                "gaps": 1,
                **judged(0.7),
                "kept": 0.8,
                "global": {**judged(0.75), "kept": 0.9},
            }
        ],
        "curves": [{"of": "all points", "rank": r, "fidelity": r / 10, "logit_mse": 1 / r} for r in (1, 5)],
    }
    found["compressions"][-1]["fidelity"] = 0.81 + 3 * seed / 1e3
    stages = {"uniform": (0.02, 0.99), "kmeans": (0.018, 0.996), "tangent": (0.014, 0.998)}
    rows = [("points", {"steps": 150, **judged(f), "held residual": r, "logit_error": 0.1}) for r, f in stages.values()]
    costs = {"uniform": (0, 0), "kmeans": (10000, 11000), "tangent": (200000, 500000)}
    if points:
        found["points"] = [
            {"stage": name, "count": 10, **row, "stage gradients": costs[name][0], "passes": costs[name][1]}
            for name, (_, row) in zip(stages, rows, strict=True)
        ]
        found["students"] = [
            {"stage": name, "count": 10, "aims": aims, "accuracy": 0.9 if aims == "logits" else 0.8}
            for name in stages
            for aims in ("logits", "labels")
        ]
    return found


FOUND = {
    "benchmark": "distilled",
    "command": "python -m benchmarks distilled",
    "sizes": [5],
    "counts": [10],
    "stages": 2,
    "points": 500,
    "dim": 2048,
    "epochs": 3,
    "student steps": 4,
    "student rate": 0.01,
    "seeds": 3,
    "versions": {"ntkest": "0.1.0"},
    "cells": [cell(0), cell(1), cell(2, points=False)],
}


@pytest.fixture(autouse=True)
def known_stages(monkeypatch):
    monkeypatch.setattr("benchmarks.distilled_points_page.SELECTIONS", ("uniform", "kmeans"))


def test_the_page_says_what_was_measured(tmp_path):
    distilled_page.write(FOUND, tmp_path)
    page = (tmp_path / "distilled.md").read_text()
    assert "| global | 0.801 |" in page
    assert "| local-global | +0.012 ± 0.001 ▲, 1.00 |" in page
    assert "| MLP | 9,610 | 97.0% (97.0% to 97.0%) | 11 to 12 | 13 | 90 | 12.5% | 0.999 |" in page
    assert "| MLP | 0.9 | additive | 5 | 1 | 0.800 | 0.900 | 0.700 | 0.750 | -0.050 ± 0.000 |" in page
    assert "| uniform | 0.9900 | 0.5000 | 0.1 | 0.02 | 1,000 | 10 | 0 |" in page
    assert "| kmeans | 0.9960 | 0.5000 | 0.1 | 0.018 | 10,000 | 1 | 11,000 |" in page
    assert "| tangent | 0.9980 | 0.5000 | 0.1 | 0.014 | 201,000 | 0.05 | 500,000 |" in page
    assert "| uniform | 0.900 / 0.800 |" in page
    for name in ("distilled", "distilled-ranks", "distilled-points"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
        assert f"({name}.svg)" in page


def test_its_words_follow_the_numbers():
    page = distilled_page.markdown(FOUND)
    assert "4 of 4 figures of an earlier program are met within 0.1, and the order of methods is the same." in page
    assert "Higher: MLP at s = 5 (+0.012 ± 0.001). Lower: nowhere. In the other 0 of 1" in page
    assert "local-global is higher in 1 of 1 comparisons and lower in 0" in page
    assert "lowest for tangent-tuned ones, 0.014, then kmeans, 0.018 (MLP)" in page
    other = copy.deepcopy(FOUND)
    for each in other["cells"]:
        for row in each["compressions"]:
            row["fidelity"] = {"kmeans": 0.9, "local-global": 0.7 + each["seed"] / 100}.get(row["method"], 0.8)
        for row in each.get("points", []):
            row["held residual"] = {"tangent": 0.03}.get(row["stage"], 0.02)
            row["fidelity"] = {"tangent": 0.9 + each["seed"] / 1000}.get(row["stage"], 0.99)
    page = distilled_page.markdown(other)
    assert "not: uniform at s = 5 (0.80 and 0.45), kmeans at s = 5 (0.90 and 0.50)" in page
    assert "kmeans 0.900 over global 0.800 at s = 5, by 0.100 ± 0.000" in page
    assert "Higher: nowhere. Lower: MLP at s = 5 (-0.090 ± 0.006)." in page
    assert "It does not beat the baseline on the whole" in page
    assert "NOT lowest for tangent-tuned ones, 0.03: uniform, 0.02 (MLP)" in page
    assert "tangent-tuned ones are BELOW the best selection" in page


def test_a_difference_needs_an_interval_without_zero():
    assert distilled_averages.side_of(0.1, 0.03, 3) == 0  # Student's quantile for three is 4.30
    assert distilled_averages.side_of(0.1, 0.02, 3) == 1
    assert distilled_averages.side_of(-0.1, 0.03, 8) == -1
    assert distilled_averages.side_of(1.0, math.nan, 1) == 0


@pytest.mark.needs("torch")
def test_points_are_judged_by_the_span_of_explicit_gradients():
    import torch

    from benchmarks import distilled_networks, distilled_points
    from ntkest.distilled.points.problem import Points

    digits = distilled_networks.digits("ConvNet", 0, 20)
    model = distilled_networks.fresh("ConvNet", 0)
    few = Points(digits.images[::7], digits.labels[::7].numpy())
    found = distilled_points.Judge(model, digits)(few)
    model.double()
    rows, there = (explicit(model, x.double()) for x in (few.inputs, digits.held_images))
    with torch.no_grad():
        said, truth = (model(x.double()).numpy() for x in (few.inputs, digits.held_images))
    left, predicted = 0.0, np.zeros_like(truth)
    for c in range(10):
        A, B = rows[:, c], there[:, c]
        left += ((B - (B @ np.linalg.pinv(A)) @ A) ** 2).sum()
        K = A @ A.T
        K += 1e-4 * np.trace(K) / len(K) * np.eye(len(K))
        predicted[:, c] = B @ A.T @ np.linalg.solve(K, said[:, c])
    assert found["held residual"] == pytest.approx(left / (there**2).sum(), rel=1e-6)
    assert found["logit_mse"] == pytest.approx(((predicted - truth) ** 2).mean(), rel=1e-6)
    assert found["fidelity"] == (predicted.argmax(1) == truth.argmax(1)).mean()


def explicit(model, inputs):
    """J (n, O, P), row by row."""
    import torch

    rows = []
    for x in inputs:
        out = model(x[None])[0]
        grads = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in out]
        rows.append([torch.cat([g.ravel() for g in grad]).numpy() for grad in grads])
    return np.asarray(rows)


@pytest.mark.needs("torch")
def test_a_tiny_run_writes_its_files(tmp_path, monkeypatch):
    """In this process: new ones each import torch."""
    from benchmarks.distilled_worker import perform, rounded

    monkeypatch.setattr(distilled, "_run", lambda task: json.loads(json.dumps(rounded(perform(task)))))
    monkeypatch.setattr("benchmarks.distilled_points.STAGES", ("uniform", "kmeans", "tangent"))
    monkeypatch.setattr("benchmarks.distilled_gradients.DRAWS", 1)
    sizes = ["--images", "40", "--points", "20", "--sizes", "5", "--counts", "1", "--dim", "32"]
    steps = ["--epochs", "2", "--steps", "1", "--student-steps", "1", "--seeds", "2", "--stages", "1"]
    arguments = ["--network", "MLP", *sizes, *steps]
    distilled.main([*arguments, "--processes", "1", "--folder", str(tmp_path)])
    found = json.loads((tmp_path / "distilled.json").read_text())
    assert found["command"] == " ".join(["python -m benchmarks distilled", *arguments])
    assert [(c["seed"], "points" in c) for c in found["cells"]] == [(0, True), (1, False)]
    rows = {row["method"]: row for row in found["cells"][0]["compressions"]}
    assert all(rows[name]["kept"] <= rows["global"]["kept"] + 1e-6 for name in rows)
    assert [(row["stage"], row["steps"]) for row in found["cells"][0]["points"]] == [
        ("uniform", 0),
        ("kmeans", 0),
        ("tangent", 1),
    ]
    before = (tmp_path / "distilled.md").read_text()
    distilled.main(["--render", "--folder", str(tmp_path)])
    assert (tmp_path / "distilled.md").read_text() == before
