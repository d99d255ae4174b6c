"""The page about distillation. All of its numbers, and the words that depend on them, come from the JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import distilled_figures
from .distilled_averages import (
    above,
    average,
    cells_of,
    error_ratio,
    from_global,
    mean_and_error,
    networks_of,
    side_of,
)
from .distilled_earlier import agreement, beside_earlier
from .distilled_points_page import points_part, points_short
from .report import _table

Row = dict[str, Any]

MEASURES = {
    "fidelity": ("Fidelity", "{:.3f}"),
    "accuracy": ("Accuracy", "{:.3f}"),
    "logit_mse": ("Mean squared error of logits", "{:.3g}"),
    "condition": ("Condition number", "{:.2g}"),
    "smallest": ("Smallest eigenvalue, of the mean diagonal", "{:.2g}"),
}


def write(found: Row, folder: Path) -> None:
    """The page and its figures."""
    distilled_figures.draw(found, folder)
    (folder / "distilled.md").write_text(markdown(found), encoding="utf-8")


def markdown(found: Row) -> str:
    """The page."""
    parts = [
        "# The distilled NTK on digits",
        _about(found),
        "## In short",
        "\n".join(f"- {line}" for line in [*_short(found), *points_short(found)]),
        "## Networks",
        _networks(found),
        "## Combinations",
        f"Class-kernel ridge regression from s combinations of the gradients of {found['points']} images, "
        f"{found['points'] // 10} of each class, projected to k = {found['dim']:,}. *uniform* to *rpcholesky* keep s "
        "images as they are, chosen without labels, the mean of 5 draws each; *global* are the first s eigenvectors "
        "of K̄, the baseline; *local-global* is `local_global(…, size=s)`. Its variants: *raw* columns instead of "
        "orthonormal ones; *no gaps*, with `coverage_threshold=0`; and clusters *by labels* instead of spectral ones.",
        "![Fidelity, accuracy and error of logits by the number of combinations](distilled.svg)",
    ]
    for network in networks_of(found):
        parts += [f"### {network}", *_combinations(found, network)]
    parts += ["### Beside an earlier program", beside_earlier(found)] if "MLP" in networks_of(found) else []
    parts += ["## Local-global compression and its baseline", _differences(found), _thresholds(found)]
    parts += ["## The predictor of rank r", _curves(found), "![Fidelity and error by rank](distilled-ranks.svg)"]
    return "\n\n".join([*parts, *points_part(found)]) + "\n"


def _about(found: Row) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    one = found["cells"][0]
    return (
        f"`{found['command']}`, {versions}. Raw numbers: [distilled.json](distilled.json). Do not edit.\n\n"
        f"scikit-learn's digits, {one['train']:,} for training and {one['held']:,} held out, on which everything is "
        f"measured. Numbers are means over seeds, of the split, the training, the projection and all choices: "
        f"{found['seeds']} for combinations, {found['stages']} for points; those after ± are standard errors. "
        "*Fidelity*: how often the largest output is the network's; "
        f"one image is {1 / one['held']:.4f}. Ridges are 1e-4 of the mean diagonal."
    )


def _methods(found: Row) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in found["cells"][0]["compressions"]))


def _variants(found: Row) -> list[str]:
    """Everything that is compared with the global eigenvectors and is not a selection."""
    methods = _methods(found)
    return methods[methods.index("global") + 1 :]


def _networks(found: Row) -> str:
    rows = []
    for network in networks_of(found):
        cells = cells_of(found, network)
        teacher, ranks = [c["teacher"]["held"] for c in cells], [r for c in cells for r in c["ranks"]]
        rows.append(
            [
                network,
                f"{cells[0]['parameters']:,}",
                f"{mean_and_error(teacher)[0]:.1%} ({min(teacher):.1%} to {max(teacher):.1%})",
                f"{min(ranks)} to {max(ranks)}",
                f"{mean_and_error([c['mean rank'] for c in cells])[0]:.0f}",
                f"{mean_and_error([c['pooled rank'] for c in cells])[0]:.0f}",
                f"{mean_and_error([c['containment gap'] for c in cells])[0]:.1%}",
                f"{mean_and_error([c['whole']['fidelity'] for c in cells])[0]:.3f}",
            ]
        )
    head = ["", "P", "accuracy", "r(.05) of a class", "of K̄", "pooled", "gap", "fidelity of all points"]
    return (
        "The MLP is 64-128-10; the ConvNet has 3 × 3 convolutions with 8 and 16 channels, the second with stride 2, "
        f"and a linear readout. They are trained by Adam for {found['epochs']} epochs. *r(.05)*: how many eigenvalues "
        f"carry 95 % of the kernel of {found['points']} images, of a class by itself, of the mean K̄, and of all "
        "classes pooled. *Gap*: the share of the variance of ten clusters that is outside the first r(.05) "
        "eigenvectors of K̄.\n\n" + _table(head, rows)
    )


def _combinations(found: Row, network: str) -> list[str]:
    cells, sizes = cells_of(found, network), found["sizes"]
    head = ["s", *(str(size) for size in sizes)]
    parts = ["m/s = " + ", ".join(f"{found['points'] / size:g}" for size in sizes) + "."]
    for measure, (title, pattern) in MEASURES.items():
        rows = []
        for method in _methods(found):
            values = (average(cells, "compressions", measure, method=method, size=size) for size in sizes)
            rows.append([method, *(pattern.format(value) for value in values)])
        parts += [f"*{title}*", _table(head, rows)]
    return parts


def _short(found: Row) -> list[str]:
    return [*([agreement(found)] if "MLP" in networks_of(found) else []), *_verdict(found)]


def _verdict(found: Row) -> list[str]:
    """Whether and where local-global compression beats the global eigenvectors."""
    seeds, where = (
        found["seeds"],
        [(n, m, s) for n in networks_of(found) for m in _variants(found) for s in found["sizes"]],
    )
    sides: dict[int, list[str]] = {1: [], 0: [], -1: []}
    default: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for network, method, size in where:
        mean, error = from_global(cells_of(found, network), method, size)
        side = side_of(mean, error, seeds)
        sides[side].append(method)
        if method == "local-global":
            default[side].append(f"{network} at s = {size} ({mean:+.3f} ± {error:.3f})")
    worse = [method for network, method, size in where if error_ratio(cells_of(found, network), method, size) > 1]
    count, plain = len(where), sum(map(len, default.values()))
    higher, lower = ("; ".join(default[side]) or "nowhere" for side in (1, -1))
    overall = []
    for size in found["sizes"]:
        mean, error = mean_and_error([above(cell, "local-global", "global", size) for cell in cells_of(found)])
        overall.append(f"{mean:+.4f} ± {error:.4f} at s = {size}")
    return [
        "Local-global compression against as many global eigenvectors, in fidelity. Higher: "
        f"{higher}. Lower: {lower}. In the other {len(default[0])} of {plain} comparisons the "
        f"95 % interval of the difference has zero in it. Over all networks: {', '.join(overall)}.",
        f"With the variants there are {count} comparisons: local-global is higher in {len(sides[1])}, lower in "
        f"{len(sides[-1])}, and by chance alone it would be either in about {count / 40:.0f}. Its squared error of "
        f"logits is larger in {len(worse)} of {count}, and by default in {worse.count('local-global')} of {plain}. It "
        "does not beat the baseline on the whole: no other s combinations keep as much of tr K̄."
        if len(sides[1]) <= len(sides[-1])
        else f"With the variants, local-global is higher in {len(sides[1])} of {count} comparisons and lower in "
        f"{len(sides[-1])}. Its squared error of logits is larger in {len(worse)}.",
    ]


def _differences(found: Row) -> str:
    parts = []
    for network in networks_of(found):
        rows = []
        for method in _variants(found):
            cells = []
            for size in found["sizes"]:
                mean, error = from_global(cells_of(found, network), method, size)
                ratio = error_ratio(cells_of(found, network), method, size)
                mark = {1: " ▲", -1: " ▼", 0: ""}[side_of(mean, error, found["seeds"])]
                cells.append(f"{mean:+.3f} ± {error:.3f}{mark}, {ratio:.2f}")
            rows.append([method, *cells])
        parts.append(_table([network, *(f"s = {size}" for size in found["sizes"])], rows))
    return (
        "Fidelity less that of as many global eigenvectors of the same network, and the ratio of the squared errors of "
        "logits. ▲ and ▼: zero is outside the 95 % interval of the difference.\n\n" + "\n\n".join(parts)
    )


def _thresholds(found: Row) -> str:
    rows = []
    for network in networks_of(found):
        cells = cells_of(found, network)
        for tau, coverage in dict.fromkeys((row["variance"], row["coverage"]) for row in cells[0]["thresholds"]):
            own = [r for c in cells for r in c["thresholds"] if (r["variance"], r["coverage"]) == (tau, coverage)]
            mean, error = mean_and_error([r["fidelity"] - r["global"]["fidelity"] for r in own])
            rows.append(
                [
                    network,
                    f"{tau:g}",
                    coverage,
                    f"{mean_and_error([r['size'] for r in own])[0]:.0f}",
                    f"{mean_and_error([r['gaps'] for r in own])[0]:.0f}",
                    *(f"{mean_and_error([side['kept'] for side in sides])[0]:.3f}" for sides in _sides(own)),
                    *(f"{mean_and_error([side['fidelity'] for side in sides])[0]:.3f}" for sides in _sides(own)),
                    f"{mean:+.3f} ± {error:.3f}",
                ]
            )
    head = ["", "τ_v", "coverage", "s", "gaps", "kept", "… by global", "fidelity", "… of global", "difference"]
    return (
        "By thresholds, as the method is written: s is an outcome of τ_v, with τ_g = 0.9 and ten spectral clusters; "
        "beside it as many global eigenvectors. *Kept*: the share of tr K̄ in the span.\n\n" + _table(head, rows)
    )


def _sides(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return rows, [row["global"] for row in rows]


def _curves(found: Row) -> str:
    parts = []
    for network in networks_of(found):
        cells = cells_of(found, network)
        names = list(dict.fromkeys(row["of"] for row in cells[0]["curves"]))
        ranks = sorted({row["rank"] for row in cells[0]["curves"]})
        rows = []
        for name in names:
            there = {row["rank"] for row in cells[0]["curves"] if row["of"] == name}
            values = (
                f"{average(cells, 'curves', 'fidelity', of=name, rank=r):.3f}" if r in there else "" for r in ranks
            )
            rows.append([name, *values])
        parts.append(_table([network, *(f"r = {rank}" for rank in ranks)], rows))
    return (
        f"Fidelity with the first r principal components of each class only: of all {found['points']} points, and of "
        f"{max(found['sizes'])} combinations.\n\n" + "\n\n".join(parts)
    )
