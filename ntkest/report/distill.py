"""`ntkest distill`: the distilled kernel of the user's own classifier."""

from __future__ import annotations

import time
from argparse import Namespace
from collections import Counter
from typing import Any

from .. import usercode
from ..distilled.ledger import COLUMNS
from ..distilled.pipeline import distill
from ..distilled.result import DistilledNTK
from ..distilled.scores import Scores
from ..distilled.truncation import Redundancy
from ..linearization import is_linearization
from . import files, targetdata
from .kernel import cluster
from .problems import CommandError
from .progress import Stages
from .run import Run
from .tables import Facts, Section, Table

KEYWORDS = (
    "data",
    "points",
    "dim",
    "kind",
    "compression",
    "size",
    "variance",
    "coverage_threshold",
    "clusters",
    "ridge",
    "seed",
    "memory",
    "batch",
)
"""Options that go to `ntkest.distill` as they are, where they are given."""

OTHERS = ("labels", "test", "test_labels", "store", "workers", "out")


def run(options: Namespace, stages: Stages) -> Run:
    """Distill, evaluate on other inputs where there are any, and write the result."""
    if options.test_labels is not None and options.test is None:
        raise CommandError("--test-labels are of the inputs that --test gives, and there are none")
    files.check(options.out, options.force)
    with usercode.importable(options.target):
        return _run(options, stages)


def _run(options: Namespace, stages: Stages) -> Run:
    start = time.perf_counter()
    labels, test, test_labels = (
        None if source is None else targetdata.load(source, option)
        for option, source in (
            ("--labels", options.labels),
            ("--test", options.test),
            ("--test-labels", options.test_labels),
        )
    )
    with stages("examples") as report:
        found = _distilled(options, labels, report)
    seconds = {"distill": time.perf_counter() - start}
    analysis, scores = found.analysis, None  # before it is saved
    if test is not None:
        start = time.perf_counter()
        scores = found.metrics(targetdata.place(found.features, test), test_labels)
        seconds["test"] = time.perf_counter() - start
    if options.out is not None:
        found.save(options.out, force=options.force)
    title = f"The distilled kernel of {options.target}"
    return Run(
        command="distill",
        target=options.target,
        title=title,
        options={name: getattr(options, name) for name in (*KEYWORDS, *OTHERS)},
        sections=_sections(title, found, scores, options, seconds),
        results={
            **found.to_dict(),
            "analysis": analysis.to_dict(),
            "scores": None if scores is None else scores.to_dict(),
        },
        seconds=seconds,
        analysis=analysis,
    )


def _distilled(options: Namespace, labels: Any, report: Any) -> DistilledNTK:
    keywords = {name: getattr(options, name) for name in KEYWORDS if getattr(options, name) is not None}
    keywords |= {"labels": labels, "out": options.store, "progress": report}
    if options.workers is not None:
        with cluster(options.workers) as client:
            return distill(options.target, client=client, **keywords)
    made = usercode.call(options.target)
    if not is_linearization(made) and not (isinstance(made, tuple | list) and len(made) in (2, 3)):
        raise CommandError(
            f"{options.target} returned a {type(made).__name__}; it should return (model, inputs), (f, params, inputs) "
            "or a Linearization"
        )
    return distill(*(made if isinstance(made, tuple | list) else (made,)), **keywords)


def _sections(
    title: str, found: DistilledNTK, scores: Scores | None, options: Namespace, seconds: dict[str, float]
) -> list[Section]:
    about, costs = found.about, found.ledger
    assert costs is not None  # it is given features that have none
    kinds = Counter(found.compression.kinds)
    made_of = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    ratio = about["m"] / found.size
    facts = [
        ("model", f"{about['P']:,} parameters, {about['O']} classes, {about['N']:,} examples"),
        ("data", f"{about['data']}: {about['m']:,} points"),
        ("projection", f"{about['kind']}: {about['k']:,} dimensions"),
        (
            "compression",
            f"{about['compression']}: {found.size} gradients ({made_of}), {ratio:.3g} : 1",
        ),
        ("ranks", _ranks(found.analysis.redundancy)),
        ("time", f"{seconds['distill']:.2f} s, seed {options.seed}"),
    ]
    if options.out is not None:
        facts.append(("written", options.out))
    sections: list[Section] = [Facts(title, facts)]
    if scores is not None:
        sections.append(Table((f"on {scores.examples:,} other inputs", ""), scores.rows()))
    sections.append(Table(("cost", *COLUMNS), costs.rows()))
    return sections


def _ranks(found: Redundancy) -> str:
    each, pooled = found.count, found.count * len(found.ranks)
    return (
        f"{min(found.ranks)} to {max(found.ranks)} of {each:,} gradients hold {100 * (1 - found.share):g} % of a class "
        f"kernel, {found.pooled_rank} of {pooled:,} hold that of all pooled"
    )
