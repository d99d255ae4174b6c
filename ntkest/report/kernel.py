"""`ntkest kernel`: the exact kernel of the user's own model, on disk."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import usercode
from ..kernels import ntk
from ..kernels.store import Store, opened
from ..kernels.streaming import KERNEL, moments
from ..memory import size_text
from .problems import CommandError
from .progress import Stages
from .run import Run
from .tables import Facts, Section, Table

KEYWORDS = ("outputs", "by", "seed")
"""Options that go to `ntkest.ntk` as they are."""


def run(options: Namespace, stages: Stages) -> Run:
    """Compute what is not there yet, in this process or on workers, and say what the kernel is like."""
    start = time.perf_counter()
    counts: list[int] = []
    with stages("tiles") as report:

        def progress(done: int, expected: int) -> None:
            counts.append(done)
            report(done, expected)

        _compute(options, progress)
    seconds = {"kernel": time.perf_counter() - start}
    store = opened(Path(options.out).absolute(), KERNEL)
    results = _results(store)
    title = f"The kernel of {options.target}"
    return Run(
        command="kernel",
        target=options.target,
        title=title,
        options={name: getattr(options, name) for name in (*KEYWORDS, "other", "out", "memory", "workers")},
        sections=_sections(title, store, results, options, counts[-1] - counts[0], seconds["kernel"]),
        results=results,
        seconds=seconds,
    )


def _compute(options: Namespace, progress: Any) -> None:
    keywords = {name: getattr(options, name) for name in KEYWORDS}
    keywords |= {"out": options.out, "force": options.force, "progress": progress}
    if options.workers is not None:
        with cluster(options.workers) as client:
            ntk(options.target, options.other, client=client, memory=options.memory, **keywords)
        return
    with usercode.importable(options.target):
        J = usercode.linearized(options.target)
        other = None if options.other is None else usercode.linearized(options.other)
        ntk(J, other, memory=options.memory, **keywords)


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A client of as many processes on this machine, which go when the work is done."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CommandError('--workers needs dask: python -m pip install "ntkest[scale]"') from error
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=None,  # --memory is kept to by the tiles
        dashboard_address=":0",
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster) as client:
        yield client


def _results(store: Store) -> dict[str, Any]:
    """Shapes, and of each kernel what its tiles' own sums tell."""
    kernels: dict[str, Any] = {}
    for name, (trace, square) in zip(store.names or ("kernel",), moments(store), strict=True):
        kernels[name] = {"frobenius_norm": square**0.5}
        if store.about["symmetric"]:
            kernels[name] |= {"trace": trace, "effective_rank": trace**2 / square if square else None}
    array = store.arrays()[0]
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "chunk": array.chunks[0],
        "tiles": len(store.layout.places()),
        "bytes": array.nbytes * len(kernels),
        "kernels": kernels,
    }


def _sections(
    title: str, store: Store, results: dict[str, Any], options: Namespace, computed: int, seconds: float
) -> list[Section]:
    rows, columns = results["shape"]
    before = results["tiles"] - computed
    there = f", {before:,} were there" if before else ""
    where = "in this process" if options.workers is None else f"by {options.workers} workers"
    facts = [
        ("kernel", f"{rows:,} × {columns:,} {results['dtype']}, outputs: {options.outputs}"),
        ("store", f"{options.out}, {size_text(results['bytes'])}, in chunks of {results['chunk']:,}"),
        ("cost", f"{computed:,} {'tile' if computed == 1 else 'tiles'} computed {where}{there}, {seconds:.2f} s"),
    ]
    titles = {"trace": "trace", "frobenius_norm": "Frobenius norm", "effective_rank": "effective rank"}
    kernels = results["kernels"]
    names = [name for name in titles if name in next(iter(kernels.values()))]
    if not store.names:
        table = Table(("", "value"), [(titles[name], _number(kernels["kernel"][name])) for name in names])
    else:
        cells = [(part, *(_number(values[name]) for name in names)) for part, values in kernels.items()]
        table = Table((f"by {options.by}", *(titles[name] for name in names)), cells)
    return [Facts(title, facts), table]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.6g}"
