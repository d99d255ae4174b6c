"""The data stage of the benchmark of distillation: few points in the place of all, and networks trained on them."""

from __future__ import annotations

import copy
from typing import Any

import torch

import ntkest
from ntkest.distilled.metrics import evaluate
from ntkest.distilled.points.exact import class_kernels, gradients, square_norms
from ntkest.distilled.points.problem import Points, posed
from ntkest.distilled.points.selection import CHOICES
from ntkest.distilled.points.stages import as_stage
from ntkest.distilled.points.tuning import Tuned

from .distilled_networks import Digits, fresh, imitate, rate_of

STAGES = ("uniform", *CHOICES, "wasserstein", "tangent", "inducing")
RIDGE = 1e-4
"""Of the regression, relative to the mean of the diagonal, as `ntkest.distill` has it."""

FEWER, MANY = 30, 50
"""Steps of the stages that go through the kernel, and from how many points a class on: there a step takes long."""


def measured(
    network: str, model: torch.nn.Module, digits: Digits, settings: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Rows for every stage and count of points: the kernel regression from them, and networks trained on them."""
    judge = Judge(model, digits)
    points, students = [], []
    for count in settings["counts"]:
        for name in STAGES:
            stage = _stage(name, count, settings["steps"])
            found = stage(posed(model, digits.images, labels=digits.labels.numpy(), count=count, seed=seed))
            points.append(
                {"stage": name, "count": count, "steps": getattr(stage, "steps", 0), **judge(found), **_cost(found)}
            )
            for aims in ("logits", "labels"):
                rate = _student(network, model, digits, found, aims, settings["student steps"], seed)
                students.append({"stage": name, "count": count, "aims": aims, "accuracy": rate})
    return {"points": points, "students": students}


def _stage(name: str, count: int, steps: int | None) -> Any:
    """By name; the slow ones with as many steps as they are given time for."""
    stage = as_stage(name)
    if isinstance(stage, Tuned) and (steps or count >= MANY):
        return Tuned(stage.loss, steps=steps or FEWER)
    return stage


def _cost(found: Points) -> dict[str, int]:
    """Of the stage itself."""
    return {"stage gradients": found.gradients, "passes": found.passes}


def _student(network: str, teacher: Any, digits: Digits, found: Points, aims: str, steps: int, seed: int) -> float:
    """The accuracy of a network of the same kind from a new start, on what it never saw."""
    student = fresh(network, seed + 1000)
    with torch.no_grad():
        said = teacher(found.inputs) if aims == "logits" else torch.as_tensor(found.labels)
    imitate(student, found.inputs, said, steps)
    return rate_of(student, digits.held_images, digits.held_labels)


class Judge:
    """Exact class kernels in float64 between points and the digits, and what they say of the points."""

    def __init__(self, model: torch.nn.Module, digits: Digits) -> None:
        self._model = copy.deepcopy(model).double()
        self._labels = digits.held_labels
        self._sides = {"held": self._looked(digits.held_images), "train": self._looked(digits.images)}

    def __call__(self, found: Points) -> dict[str, float]:
        own = self._linearized(found.inputs)
        rows = gradients(own)
        K = class_kernels(own, rows)
        values, vectors = torch.linalg.eigh(K)  # ascending
        sound = values > values[:, -1:] * K.shape[-1] * torch.finfo(K.dtype).eps
        inverse = torch.where(sound, 1 / values, 0)
        crosses = {name: class_kernels(J, there, rows) for name, (J, there, _) in self._sides.items()}
        level = RIDGE * torch.diagonal(K, dim1=1, dim2=2).mean(1)
        weights = torch.linalg.solve(K + level[:, None, None] * torch.eye(K.shape[-1]), own.outputs.T[:, :, None])
        truth = self._sides["held"][0].outputs
        scores = evaluate((crosses["held"] @ weights)[:, :, 0].T, truth, self._labels)
        residuals = {}
        for name, cross in crosses.items():
            caught = ((cross @ vectors) ** 2 * inverse[:, None, :]).sum()
            residuals[f"{name} residual"] = float(1 - caught / self._sides[name][2])
        return {
            "fidelity": scores.fidelity,
            "accuracy": scores.accuracy or 0.0,
            "logit_mse": scores.logit_mse,
            "logit_error": scores.logit_mse / float((truth**2).mean()),
            **residuals,
        }

    def _linearized(self, inputs: torch.Tensor) -> Any:
        return ntkest.linearize(self._model, inputs.double(), batch_axis=0, check=False)

    def _looked(self, inputs: torch.Tensor) -> tuple[Any, Any, float]:
        """J, the gradients, and Σ ‖φ_c‖²."""
        J = self._linearized(inputs)
        return J, gradients(J), float(square_norms(J).sum())
