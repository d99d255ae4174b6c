"""The page of the benchmark of depths, and its figure."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .report import _seconds, _table
from .timing import spread


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    machine = found["machine"]
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = machine["load"][0]
    rows = []
    for cell in found["cells"]:
        full, small = (spread(cell["samples"][name]) for name in ("full", "pntk"))
        rows.append(
            [
                str(cell["depth"]),
                f"{cell['parameters'] / 1e3:.0f} k",
                *(
                    f"{_seconds(t['median'])} ({_seconds(t['quartile_1'])} … {_seconds(t['quartile_3'])})"
                    for t in (full, small)
                ),
                f"{ratio(cell):.1f}",
                f"{cell['error']:.2f}",
            ]
        )
    head = ["layers", "parameters", "full NTK (quartiles)", "pNTK (quartiles)", "full / pNTK", "error"]
    return (
        "\n\n".join(
            [
                "# Depth: the time of pNTK and of the full NTK",
                f"`{found['command']}` on {machine['processor']} ({machine['cores']} cores, load {load:.1f}), "
                f"{found['threads']} threads, float32, {names}. Raw samples: [depth.json](depth.json). Do not edit.",
                "Residual networks of three stages of widths 16, 32 and 64 in torch, batch norm in eval mode, "
                f"N = {found['examples']} images of 3 × {found['pixels']} × {found['pixels']}, ten outputs, at "
                f"initialisation. Medians of {found['rounds']} samples taken in turns, of a J made beforehand; "
                "the ratio is that of pairs. *Error*: ‖pNTK ⊗ I - K‖_F / ‖K‖_F.",
                "![Seconds against depth](depth.svg)",
                _table(head, rows),
            ]
        )
        + "\n"
    )


def ratio(cell: dict[str, Any]) -> float:
    """Of the times, the median over turns."""
    samples = cell["samples"]
    return statistics.median(a / b for a, b in zip(samples["full"], samples["pntk"], strict=True))


def draw(found: dict[str, Any], file: Path) -> None:
    """Write the figure as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    depths = [cell["depth"] for cell in found["cells"]]
    with plt.rc_context({"svg.hashsalt": "depth", "svg.fonttype": "path", "font.size": 9}):
        figure, ax = plt.subplots(figsize=(4.6, 3), layout="constrained")
        for name, text, colour in (("full", "full NTK", "#D55E00"), ("pntk", "pNTK", "#0072B2")):
            medians = [statistics.median(cell["samples"][name]) for cell in found["cells"]]
            ax.semilogy(depths, medians, "o-", ms=3.5, color=colour, label=text)
        ax.set(xlabel="layers", ylabel="seconds", xticks=depths)
        ax.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
