"""The part of the page about distillation that is about points, and about networks trained on them."""

from __future__ import annotations

from typing import Any

from .distilled_averages import average, gradients, in_cell, mean_and_error, networks_of, side_of, with_points
from .distilled_settings import CLASSES
from .report import _table

Row = dict[str, Any]

SELECTIONS = ("uniform", "kmeans", "farthest", "leverage", "rpcholesky")
IMAGENETTE = 9469
"""Training images of the data set that the paper has its 20 to 100 times from."""


def _stages(found: Row) -> list[str]:
    return list(dict.fromkeys(row["stage"] for row in found["cells"][0]["points"]))


def points_short(found: Row) -> list[str]:
    """What is to be seen of points, and whether it is."""
    lines = []
    for count in found["counts"]:
        said = [_residuals(found, network, count) for network in networks_of(found)]
        lines.append(f"The tangent-space residual of {count} points a class: {'; '.join(said)}.")
    for count in found["counts"]:
        said = [_fidelities(found, network, count) for network in networks_of(found)]
        lines.append(f"The fidelity of {count} points a class: {'; '.join(said)}.")
    return [*lines, _saved(found), *_trained(found)]


def _residuals(found: Row, network: str, count: int) -> str:
    cells = with_points(found, network)
    values = {name: average(cells, "points", "held residual", stage=name, count=count) for name in _stages(found)}
    lowest = min(values, key=lambda name: values[name])
    if lowest == "tangent":
        second = min((name for name in values if name != "tangent"), key=lambda name: values[name])
        return f"lowest for tangent-tuned ones, {values[lowest]:.3g}, then {second}, {values[second]:.3g} ({network})"
    return f"NOT lowest for tangent-tuned ones, {values['tangent']:.3g}: {lowest}, {values[lowest]:.3g} ({network})"


def _fidelities(found: Row, network: str, count: int) -> str:
    """Tangent-tuned points beside the selection with the best mean."""
    cells = with_points(found, network)
    means = {name: average(cells, "points", "fidelity", stage=name, count=count) for name in SELECTIONS}
    best = max(means, key=lambda name: means[name])
    mean, error = mean_and_error(
        [
            in_cell(cell, "points", "fidelity", stage="tangent", count=count)
            - in_cell(cell, "points", "fidelity", stage=best, count=count)
            for cell in cells
        ]
    )
    word = {1: "above", 0: "level with", -1: "BELOW"}[side_of(mean, error, len(cells))]
    return (
        f"tangent-tuned ones are {word} the best selection, {best} with {means[best]:.4f}: {mean:+.4f} ± "
        f"{error:.4f} ({network})"
    )


def _saved(found: Row) -> str:
    train = found["cells"][0]["train"]
    tuned = [gradients(row) for cell in found["cells"] for row in cell.get("points", []) if row["stage"] == "tangent"]
    least, most = (taken / (train * CLASSES) for taken in (min(tuned), max(tuned)))
    ours = ", ".join(f"{train / (count * CLASSES):.1f} with {count}" for count in found["counts"])
    paper = " and ".join(f"{IMAGENETTE / (count * CLASSES):.0f}" for count in (10, 50))
    return (
        f"Jacobian evaluations are N/m times fewer where the choice of points takes none: {ours} points a class of "
        f"{train:,} images, by uniform and wasserstein points. The paper's 20 to 100 times are N/m too: {paper} with "
        f"10 and 50 of each of {CLASSES} classes and the {IMAGENETTE:,} images of Imagenette. Selections by gradients "
        f"look at all images and save none; tangent-tuned points take {least:.0f} to {most:.0f} times as many as the "
        "full kernel."
    )


def _trained(found: Row) -> list[str]:
    lines = []
    for network in networks_of(found):
        cells = with_points(found, network)
        base, said = mean_and_error([cell["teacher"]["held"] for cell in cells])[0], []
        for count in found["counts"]:
            rates = {
                (name, aims): average(cells, "students", "accuracy", stage=name, count=count, aims=aims)
                for name in _stages(found)
                for aims in ("logits", "labels")
            }
            name, aims = max(rates, key=lambda key: rates[key])
            said.append(f"{rates[name, aims]:.1%} with {count} points a class ({name}, {aims})")
        lines.append(
            f"A new {network} trained on points alone reads at best {', '.join(said)}; its teacher {base:.1%}."
        )
    return lines


def points_part(found: Row) -> list[str]:
    """Tables and the figure."""
    parts = [
        "## Points",
        "Kernel regression from few points of each class, with exact class kernels in float64. *Residual*: the share "
        "of the gradients of images held out that is outside the span of those of the points, Σ_c ‖(I - Π_c)φ_c‖² / "
        "Σ_c ‖φ_c‖². *Error*: the mean square of logit errors over that of logits. *Gradients*: how many ∇_θ f_c(x) "
        "choosing or making the points and regression from them takes; *saved*: how many times fewer than the full "
        "kernel. *Passes*: those of the stage, forward and reverse, of one image. " + _steps(found),
        "![Residuals of points, and accuracies of networks trained on them](distilled-points.svg)",
    ]
    for network in networks_of(found):
        for count in found["counts"]:
            parts += [f"### {network}, {count} points a class", _points(found, network, count)]
    parts += [
        "## Networks trained on points alone",
        "The accuracy of a network of the same kind from a new initialisation, trained by Adam, "
        f"{found['student steps']} steps at a rate of {found['student rate']:g} "
        "on all points at once, on the teacher's logits / on the labels.",
    ]
    for network in networks_of(found):
        cells = with_points(found, network)
        rows = []
        for name in _stages(found):
            texts = []
            for count in found["counts"]:
                pair = (
                    average(cells, "students", "accuracy", stage=name, count=count, aims=aims)
                    for aims in ("logits", "labels")
                )
                texts.append(" / ".join(f"{rate:.3f}" for rate in pair))
            rows.append([name, *texts])
        base = mean_and_error([cell["teacher"]["held"] for cell in cells])[0]
        rows.append(["all images, the teacher", *(f"{base:.3f}" for _ in found["counts"])])
        parts.append(_table([network, *(f"{count} a class" for count in found["counts"])], rows))
    return parts


def _steps(found: Row) -> str:
    """How long the stages that go through the kernel had."""
    rows = [row for row in found["cells"][0]["points"] if row["stage"] == "tangent"]
    said = ", ".join(f"{row['steps']} steps with {row['count']} points a class" for row in rows)
    return f"*tangent* and *inducing* take {said}."


def _points(found: Row, network: str, count: int) -> str:
    cells = with_points(found, network)
    rows = []
    for name in _stages(found):
        where = {"stage": name, "count": count}
        own = [row for cell in cells for row in cell["points"] if (row["stage"], row["count"]) == (name, count)]
        taken = mean_and_error([gradients(row) for row in own])[0]
        full = cells[0]["train"] * CLASSES
        rows.append(
            [
                name,
                f"{average(cells, 'points', 'fidelity', **where):.4f}",
                f"{average(cells, 'points', 'accuracy', **where):.4f}",
                f"{average(cells, 'points', 'logit_error', **where):.2g}",
                f"{average(cells, 'points', 'held residual', **where):.3g}",
                f"{taken:,.0f}",
                f"{full / taken:.2g}",
                f"{average(cells, 'points', 'passes', **where):,.0f}",
            ]
        )
    return _table(["", "fidelity", "accuracy", "error", "residual", "gradients", "saved, ×", "passes"], rows)
