"""`ntkest demo`: the kernel of a small network on handwritten digits, before and after training."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ..estimate import Estimate
from ..linearization import MissingBackendError
from ..quantities import alignment
from ..summary import Summary, summary
from . import digits
from .progress import Stages
from .run import Run
from .tables import Facts, Note, Section, Table, cell, percent

NEXT = "Your own model: ntkest report FILE.py:FUNCTION (see ntkest report --help)"

NEEDS = {"sklearn": "scikit-learn", "autograd": "autograd"}
"""Modules that the demo cannot do without, and the packages that have them."""

TITLE = "The neural tangent kernel of a network that learns to read digits"

IMAGES = 256
"""Held-out images on which the kernel is taken."""

ROWS = {
    "trace": "trace",
    "frobenius_norm": "Frobenius norm",
    "effective_rank": "effective rank",
    "alignment": "alignment with the labels",
    "between": "alignment with the start",
}


@dataclass
class Findings:
    """What the stages have found so far: Ctrl-C leaves some of it unset."""

    accuracy: dict[str, float] = field(default_factory=dict)
    kernels: dict[str, Summary] = field(default_factory=dict)
    between: Estimate | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


def run(options: Namespace, stages: Stages) -> Run:
    """Train, and measure the kernel before and after.

    Costs some hundred passes a kernel. With Ctrl-C what is finished is kept.

    Raises
    ------
    MissingBackendError
        If scikit-learn or autograd is not installed.
    """
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise MissingBackendError(
            f"ntkest demo cannot find {' and '.join(missing)}; try: python -m pip install {' '.join(missing)}"
        )
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    found = Findings()
    data = digits.load_digits(options.seed)
    try:
        # The matrices are small: more threads would cost time, and could change the order of sums from run to run.
        with threadpool_limits(limits=1):
            _work(found, data, options, stages)
    except KeyboardInterrupt:
        if not found.kernels:
            raise
        found.interrupted = True
    kept = {"seed": options.seed, "rtol": options.rtol, "max_passes": options.max_passes}
    return Run(
        command="demo",
        target=None,
        title=TITLE,
        options=kept,
        sections=_sections(found, data, options),
        results=_results(found),
        seconds=found.seconds,
        summaries=_charted(found),
        interrupted=found.interrupted,
    )


def _work(found: Findings, data: digits.Digits, options: Namespace, stages: Stages) -> None:
    keywords = {"rtol": options.rtol, "max_passes": options.max_passes, "seed": options.seed, "by": "layer"}
    images, labels = data.images[:IMAGES], data.labels[:IMAGES]
    params = digits.initial(options.seed)

    def measured(when: str, J: Any) -> None:
        with _timed(found, when), stages(f"kernel {when} training") as report:
            found.kernels[when] = summary(J, labels, progress=report, **keywords)
        _stop_if_interrupted(found.kernels[when]["trace"])

    start = digits.linearized(params, images)
    found.accuracy["before"] = digits.accuracy(params, data.images, data.labels)
    measured("before", start)
    with _timed(found, "training"), stages("training") as report:
        J = digits.linearized(params, data.train_images)
        for step, params in enumerate(digits.train(J, data.train_labels, params), start=1):  # noqa: B007, B020
            report(step, digits.STEPS)
    found.accuracy["after"] = digits.accuracy(params, data.images, data.labels)
    end = start.at(params)
    measured("after", end)
    with _timed(found, "between"), stages("alignment of the two") as report:
        found.between = alignment(end, start, progress=report, **keywords)
    _stop_if_interrupted(found.between)


def _stop_if_interrupted(estimate: Estimate) -> None:
    """Ctrl-C ends the whole demo, also where an estimate made something of the probes so far."""
    if estimate.about.get("interrupted"):
        raise KeyboardInterrupt


@contextmanager
def _timed(found: Findings, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    found.seconds[stage] = time.perf_counter() - start


def _results(found: Findings) -> dict[str, Any]:
    return {
        "accuracy": found.accuracy,
        "kernels": {when: kernel.to_dict() for when, kernel in found.kernels.items()},
        "between": None if found.between is None else found.between.to_dict(),
    }


def _charted(found: Findings) -> dict[str, Summary]:
    """What the plot shows: the kernels, and their alignment with each other beside those of the second."""
    shown = {f"{when} training": kernel for when, kernel in found.kernels.items()}
    if found.between is not None:
        after = found.kernels["after"]
        shown["after training"] = Summary({**after, "alignment with the start": found.between}, after.shape)
    return shown


def _sections(found: Findings, data: digits.Digits, options: Namespace) -> list[Section]:
    first = found.kernels["before"]
    outputs, parameters = first.shape
    accuracy = " → ".join(percent(share) for share in found.accuracy.values())
    training = f"{digits.STEPS} steps of gradient descent through J.vjp, {found.seconds.get('training', 0.0):.1f} s"
    facts = [
        ("data", f"scikit-learn's digits: {len(data.train_images)} to train on, {len(data.images)} held out"),
        ("network", f"64 – {digits.WIDTH} – 10, {parameters:,} parameters, float64 NumPy with autograd"),
        ("training", training if "training" in found.seconds else "interrupted"),
        ("accuracy", f"{accuracy} of the held-out digits"),
        ("kernel", f"K = J Jᵀ, {outputs:,} × {outputs:,}: {IMAGES} held-out digits × 10 logits"),
    ]
    wholes: list[Estimate] = [e for kernel in found.kernels.values() for e in kernel.values()]
    wholes += [] if found.between is None else [found.between]
    missed = [e for e in wholes if not e.converged]
    if found.interrupted:
        reached = "Interrupted: what was finished is shown."
    elif missed:
        reached = (
            f"{len(missed)} of {len(wholes)} whole-network numbers missed {percent(options.rtol)}: raise --max-passes."
        )
    else:
        reached = f"It is at most {percent(options.rtol)} of each whole-network number."
    note = f"± is half of the 95 % interval. {reached} Seed {options.seed}."
    return [Facts(TITLE, facts), _table(found), Note(note), Note(NEXT)]


def _table(found: Findings) -> Table:
    times = list(found.kernels)
    parts = [("whole network", None), *((f"layer {name}", name) for name in found.kernels["before"]["trace"].parts)]
    rows: list[tuple[str, ...]] = []
    for title, part in parts:
        rows.append((title,))
        for name, label in ROWS.items():
            rows.append((f"  {label}", *(_cell(found, when, name, part) for when in times)))
    rows.append(("cost",))
    rows.append(("  the numbers above", *(_cost(found.kernels[when].passes, found.seconds[when]) for when in times)))
    if found.between is not None:
        rows.append(("  alignment with the start", "", _cost(found.between.passes, found.seconds["between"])))
    return Table(("", *(f"{when} training" for when in times)), rows)


def _cost(passes: int, seconds: float) -> str:
    return f"{passes:,} passes, {seconds:.2f} s"


def _cell(found: Findings, when: str, name: str, part: str | None) -> str:
    if name != "between":
        estimate: Estimate | None = found.kernels[when][name]
    else:
        estimate = found.between if when == "after" else None
    if estimate is None:
        return "1" if when == "before" else ""
    return cell(estimate if part is None else estimate.parts[part])
