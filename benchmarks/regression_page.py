"""The page about regression. All of its numbers, and the words that depend on them, come from the JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"pNTK": "#0072B2", "trace": "#009E73", "single logit": "#E69F00", "full": "#CC79A7"}
"""From the palette of Okabe and Ito."""

WHEN = {"initial": "before training", "trained": "after training"}


def write(found: dict[str, Any], folder: Path) -> None:
    """The page and its figure."""
    draw(found, folder / "regression.svg")
    (folder / "regression.md").write_text(markdown(found), encoding="utf-8")


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    held, frameworks = found["images"] - found["train"], list(found["networks"])
    spread = 100 * (0.98 * 0.02 / held) ** 0.5
    sizes = " and ".join(map(str, found["channels"][1:]))
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        "# Regression with tangent kernels",
        "",
        f"Written by `{found['command']}` on {found['machine']} with {found['threads']} threads (load average at the "
        f"end {found['load']:.1f}; {versions}); raw numbers are in [regression.json](regression.json). Do not edit.",
        "",
        f"All {found['images']:,} images of scikit-learn's digits, 8 × 8 pixels: {found['train']:,} for training and "
        f"{held} held out. The network has 3 × 3 convolutions with {sizes} channels, the second with stride 2, and a "
        f"linear readout; it is trained on squared errors by {found['epochs']} epochs of gradient descent with "
        "momentum, in each framework by itself from the same weights. Kernels are taken at its weights before and "
        "after. Then kernel ridge regression on centred one-hot labels reads the images held out; `from f₀` fits "
        "instead what the network's own outputs f₀ lack, and adds them, as training of the linearised network would. "
        f"The standard error of an accuracy of 98 % on {held} images is {spread:.1f} %, so that most of the kernels "
        "cannot be told apart by it.",
        "",
        "Ridges are the best at leaving out one training example, for each kernel; the full kernel takes that of the "
        "trace kernel, whose scale is the same, to save the eigenvectors of its "
        f"{found['train'] * found['classes']:,} rows; it need not be its best. "
        "Kernels are in float32, regression is in float64.",
        "",
    ]
    for framework in frameworks:
        lines += _table(found, framework)
    lines += [
        "`LOO` is the accuracy on training examples left out, in closed form; after training the kernel itself has "
        "seen their labels, so it flatters. Times are of one run, of the kernel between training images and that "
        "with the held-out ones. Memory is the growth of the process while kernels are computed, entries included; "
        "`entries` is what the kernels themselves take.",
        "",
        "![Accuracy on held-out digits, and time](regression.svg)",
        "",
    ]
    return "\n".join(lines)


def _table(found: dict[str, Any], framework: str) -> list[str]:
    network = found["networks"][framework]
    lines = [
        f"## {framework}",
        "",
        f"The trained network reads {network['trained']['test']:.1%} of the images held out, and "
        f"{network['initial']['test']:.1%} before its training, which took {network['seconds']:.1f} s.",
        "",
        "| kernel | accuracy | from f₀ | LOO | squared error | kernel, s | regression, s | memory, MiB "
        "| entries, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in (r for r in found["rows"] if r["framework"] == framework):
        left = "–" if row["left_out_accuracy"] is None else f"{row['left_out_accuracy']:.1%}"
        lines.append(
            f"| {row['kernel']}, {WHEN[row['point']]} | {row['accuracy']['kernel']:.1%} | "
            f"{row['accuracy']['from the network']:.1%} | {left} | {row['mean_squared_error']:.4f} | "
            f"{row['kernel_seconds']:.1f} | {row['regression_seconds']:.1f} | {row['kernel_mebibytes']:,.0f} | "
            f"{row['entries_mebibytes']:,.0f} |"
        )
    return [*lines, ""]


def draw(found: dict[str, Any], file: Path) -> None:
    """Accuracy against the seconds of the kernel, a panel a framework, with the trained network as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frameworks = list(found["networks"])
    with plt.rc_context({"svg.hashsalt": "regression", "svg.fonttype": "path", "font.size": 9}):
        figure, axes = plt.subplots(
            1,
            len(frameworks),
            figsize=(3.6 * len(frameworks), 3.2),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for ax, framework in zip(axes[0], frameworks, strict=True):
            ax.axhline(100 * found["networks"][framework]["trained"]["test"], color="black", linewidth=0.8)
            for row in (r for r in found["rows"] if r["framework"] == framework):
                filled = COLOURS[row["kernel"]] if row["point"] == "trained" else "none"
                x, y = row["kernel_seconds"], 100 * row["accuracy"]["kernel"]
                ax.scatter([x], [y], s=40, facecolor=filled, edgecolor=COLOURS[row["kernel"]], linewidth=1.5)
            ax.set(title=framework, xlabel="seconds for the kernel", xscale="log")
            ax.xaxis.set_minor_formatter("")
            ax.spines[["top", "right"]].set_visible(False)
        axes[0, 0].set_ylabel("accuracy on held-out digits, %")
        _legend(figure, axes[0, 0], found)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _legend(figure: Any, ax: Any, found: dict[str, Any]) -> None:
    kernels = dict.fromkeys(row["kernel"] for row in found["rows"])
    handles = [ax.scatter([], [], s=40, color=COLOURS[name], label=name) for name in kernels]
    handles.append(ax.scatter([], [], s=40, facecolor="none", edgecolor="grey", label="before training"))
    handles.append(ax.plot([], [], color="black", linewidth=0.8, label="trained network")[0])
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
