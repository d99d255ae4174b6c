"""``python -m benchmarks passes`` measures; ``python -m benchmarks table FILE.json`` prints what was measured.

``python -m benchmarks coverage`` holds error bars and intervals against the truth, ``python -m benchmarks tolerance``
runs to a tolerance, ``python -m benchmarks estimators`` estimators against those of other libraries, and ``python -m
benchmarks sides`` maps which of them wins where. ``python -m benchmarks overhead`` times what is not AD, and ``python
-m benchmarks kernels`` exact kernels beside those of other libraries; ``width`` and ``depth`` hold pNTK against the
full NTK, in value and in time, and ``regression`` predicts with both. ``projection`` times random projections beside
those of other libraries, ``distilled`` judges the stages of the distilled NTK, and ``pipeline`` distills a residual
network.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import sys
from pathlib import Path

from . import (
    depth_page,
    distilled_page,
    estimators_page,
    kernels_page,
    overhead_page,
    pipeline_page,
    projection_page,
    regression_page,
    report,
    sides_page,
    tolerance_page,
    width_page,
)
from .cases import CASES
from .gemm import PRODUCTS
from .passes import measure

OWN = {
    "coverage": "bias, error bars and coverage of every estimator",
    "estimators": "the contest with other libraries' estimators",
    "tolerance": "runs to a tolerance, and what they spend",
    "sides": "which estimator wins, by M/P and passes",
    "kernels": "exact kernels beside those of other libraries, and the exact trace",
    "width": "how near pNTK and the trace kernel come to the full NTK as networks grow wide",
    "depth": "the time of pNTK and of the full NTK of residual networks",
    "overhead": "what estimators spend outside AD passes",
    "projection": "random projections of gradients beside those of other libraries",
    "regression": "digits read by tangent kernels, beside the network",
    "distilled": "what the stages of the distilled NTK keep of a network's answers",
    "pipeline": "distillation of a residual network: time, memory, fidelity and ledger",
}
"""Benchmarks that are modules with a command line of their own."""


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do as it says."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in OWN:
        # imported here, for some need what the rest does without
        importlib.import_module(f".{given[0]}", __package__).main(given[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    passes = commands.add_parser("passes", help="32-probe traces against the best hand-written form")
    passes.add_argument("--pairs", type=int, default=15, help="samples of each, taken in turns")
    passes.add_argument("--rounds", type=int, default=3, help="rounds of the race between hand-written forms")
    passes.add_argument("--starts", type=int, default=5, help="fresh interpreters for import times, or none")
    passes.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everything")
    passes.add_argument("--framework", choices=sorted(PRODUCTS), action="append", help="only this; may be repeated")
    passes.add_argument("--case", choices=sorted(CASES), action="append", help="only this; may be repeated")
    passes.add_argument("--json", type=Path, help="write the raw samples here")
    passes.add_argument("--markdown", type=Path, help="write the tables here")
    for name, text in OWN.items():
        commands.add_parser(name, help=f"{text}; has options of its own")
    table = commands.add_parser("table", help="the tables of a file of raw samples")
    table.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "table":
        raw = json.loads(options.file.read_text(encoding="utf-8"))
        pages = {
            "depth": depth_page,
            "distilled": distilled_page,
            "regression": regression_page,
            "estimators": estimators_page,
            "kernels": kernels_page,
            "overhead": overhead_page,
            "projection": projection_page,
            "pipeline": pipeline_page,
            "sides": sides_page,
            "tolerance": tolerance_page,
            "width": width_page,
        }
        page = pages.get(raw.get("benchmark"), report)
        sys.stdout.write(page.markdown(raw))
        return
    if min(options.pairs, options.rounds, options.threads) < 1 or options.starts < 0:
        parser.error("--pairs, --rounds and --threads take positive numbers, --starts one that is not negative")
    raw = measure(
        options.framework or sorted(PRODUCTS, reverse=True),
        options.case or list(CASES),
        options.pairs,
        options.rounds,
        options.starts,
        options.threads,
        shlex.join(["python", "-m", "benchmarks", *given]),
    )
    text = report.markdown(raw)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
