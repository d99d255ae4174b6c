"""The page about the pipeline. All of its numbers, and the words that depend on them, come from the JSON file."""

from __future__ import annotations

from typing import Any

from ntkest.distilled.ledger import COLUMNS, ROUTES, ledger_from

SECONDS, MEBIBYTES, SHARE = 15 * 60, 4 * 1024, 0.95
"""What the pipeline should stay below, and the share of the uncompressed kernels' fidelity that it should keep."""

STEPS = {
    "distill": "distill: gradients, projection, compression",
    "metrics": "predict the images held out, with and without compression",
    "analysis": "spectra and ranks",
}

KINDS = {"sjlt": "a few signs a row and else zeros (SJLT)", "rademacher": "random signs", "gaussian": "normal numbers"}


def markdown(found: dict[str, Any]) -> str:
    """The page."""
    settings, network, scores = found["settings"], found["network"], found["scores"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    machine = found["machine"]
    widths = ", ".join(map(str, settings["widths"]))
    lines = [
        "# The whole pipeline on a residual network",
        "",
        f"Written by `{found['command']}` on {machine['processor']} with {found['threads']} threads (load average at "
        f"the start {machine['load'][0]:.1f}; {versions}); raw numbers are in [pipeline.json](pipeline.json). Do not "
        "edit.",
        "",
        f"The network has {network['parameters']:,} parameters: a convolution, a block of two convolutions for each of "
        f"the widths {widths}, with group norm, and a linear head. The images, 3 × 16 × 16, show scikit-learn's "
        "handwritten digits, turned, resized and shifted at random, in a random colour on a ground of another with "
        f"coloured waves and noise; {settings['drawn']:,} to train on, and {settings['held']:,} held out, of digits "
        f"that no other image shows. {settings['epochs']} epochs of training took {network['seconds']:.0f} s; then the "
        f"network reads {network['train']:.1%} of its images and {network['held']:.1%} of those held out.",
        "",
        f"`ntkest.distill` takes the gradients of 10 outputs at the first {settings['train']:,} images that it was "
        f"trained on, projects them to k = {settings['dim']:,} dimensions by {KINDS[settings['kind']]}, and makes "
        f"s = {settings['size']} combinations ({_kinds(found)}).",
        "",
        "## Time and memory",
        "",
        "| step | seconds | processor seconds | peak memory so far, MiB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for step in found["steps"]:
        lines.append(
            f"| {STEPS[step['name']]} | {step['seconds']:.1f} | {step['processor_seconds']:.1f} | "
            f"{step['peak_mebibytes']:,.0f} |"
        )
    seconds = sum(step["seconds"] for step in found["steps"])
    peak = max(step["peak_mebibytes"] for step in found["steps"])
    ratio = scores["fidelity"] / scores["uncompressed_fidelity"]
    lines += [
        f"| all | {seconds:.1f} | {sum(s['processor_seconds'] for s in found['steps']):.1f} | {peak:,.0f} |",
        "",
        f"Gradients and their projection took {found['projection_seconds']:.1f} s of the first step. Memory is the "
        f"largest resident size of the process, {found['before_mebibytes']:,.0f} MiB of which were there before, the "
        "libraries, the network and its images.",
        "",
        f"{SECONDS // 60} minutes are allowed for the whole, and {MEBIBYTES // 1024} GiB: "
        f"{_verdict(seconds < SECONDS and peak < MEBIBYTES)}.",
        "",
        "## What the compressed kernels say",
        "",
        f"On the {scores['examples']:,} images held out, beside regression with the uncompressed class kernels, which "
        f"is ridge regression with the same projected features of all {settings['train']:,} images:",
        "",
        "| | compressed | uncompressed |",
        "| --- | ---: | ---: |",
        f"| fidelity to the network | {scores['fidelity']:.3f} | {scores['uncompressed_fidelity']:.3f} |",
        f"| accuracy | {scores['accuracy']:.3f} | {found['uncompressed']['accuracy']:.3f} |",
        f"| mean squared error of outputs | {scores['logit_mse']:.3f} | {found['uncompressed']['logit_mse']:.3f} |",
        f"| gradients a class | {settings['size']} | {settings['train']:,} |",
        "",
        f"The compressed fidelity is {ratio:.3f} of the uncompressed, and at least {SHARE} is wanted: "
        f"{_verdict(ratio >= SHARE)}. The two agree on {scores['agreement']:.1%} of the images. The network itself "
        f"reads {scores['network_accuracy']:.1%} of them. The relative error of outputs is "
        f"{scores['logit_error']:.3f}, compression m/s is {scores['compression']:.0f}; the condition numbers "
        f"of the class kernels are {_range(scores['condition_numbers'], '.2g')}, their smallest eigenvalues "
        f"{_range(scores['smallest_eigenvalues'], '.2g')} of the mean diagonal, beside a ridge of {found['ridge']:g}.",
        "",
        *_compressions(found["compressions"]),
        *_ledger(found),
        *_ranks(found["analysis"]),
    ]
    return "\n".join(lines)


def _compressions(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "The same with other sizes, and with others' combinations of the same features: the first eigenvectors of the "
        "mean kernel, and images at random.",
        "",
        "| compression | s | fidelity | accuracy | mean squared error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row['compression']} | {row['size']} | {row['fidelity']:.3f} | {row['accuracy']:.3f} | "
            f"{row['logit_mse']:.3f} |"
        )
    return [*lines, ""]


def _ledger(found: dict[str, Any]) -> list[str]:
    ledger = ledger_from(found["ledger"])
    lines = [
        "## The ledger",
        "",
        "Gradients and passes of the first row were counted, all else follows from shapes; see [what it "
        "costs](../distilled.md#what-it-costs). Training and the images held out are not part of it.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in ledger.rows()),
        "",
        "How many times less the distilled kernel took:",
        "",
        "| than | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for route in [name for name in ROUTES if name != "distilled"]:
        times = [f"{n:,.0f}" if n >= 10 else f"{n:.2g}" for n in ledger.saved(route).values()]
        lines.append(f"| {ROUTES[route]} | " + " | ".join(times) + " |")
    return [*lines, ""]


def _ranks(analysis: dict[str, Any]) -> list[str]:
    redundancy = analysis["redundancy"]
    count, share = redundancy["count"], redundancy["share"]
    return [
        "## Truncation ranks",
        "",
        f"So many eigenvalues of the kernels of all {count:,} images carry {1 - share:.0%} of their trace:",
        "",
        "| class | " + " | ".join(map(str, range(len(redundancy["ranks"])))) + " | mean kernel | all pooled |",
        "| --- |" + " ---: |" * (len(redundancy["ranks"]) + 2),
        "| rank | "
        + " | ".join(map(str, redundancy["ranks"]))
        + f" | {redundancy['mean_rank']} | {redundancy['pooled_rank']} |",
        "",
        f"So a class has data redundancy ({_range(redundancy['ratios'], '.1f')}, {share:g}), and all gradients pooled "
        f"({redundancy['pooled_ratio']:.1f}, {share:g}). The combinations keep {analysis['kept_variance']:.1%} of the "
        f"trace of the mean kernel; local eigenvectors have {analysis['containment_gap']:.1%} of their variance "
        "outside the first global ones.",
        "",
    ]


def _kinds(found: dict[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())


def _verdict(held: bool) -> str:
    return "enough" if held else "not enough"


def _range(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    text = f"{min(known):{form}} to {max(known):{form}}" if known else "not finite"
    return text if len(known) == len(values) or not known else f"{text}, or infinite"
