"""Random projections of given gradients: ntkest beside traker and dattri, on a CPU, kind by kind.

``python -m benchmarks projection`` writes docs/benchmarks/projection.json and the page projection.md beside it. traker
and dattri run in an environment of their own, whose interpreter is named by ``--peers-python``; without it they are
left out:

    python -m venv ENV && ENV/bin/python -m pip install -r benchmarks/peers_projection.txt

A process a contestant, and one file of gradients for all. All of a kind are alive together and take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import projection_page
from .contest_worker import digits
from .gemm import FLOPS
from .kernels_contestants import Contestant, Entry, GoneError
from .passes import machine

KINDS = ("rademacher", "gaussian", "sjlt")

ENTRIES = (
    Entry("torch", "peers_ntkest_projection", "project_gradients"),
    Entry("torch", "peers_traker", "BasicProjector", "peers"),
    Entry("torch", "peers_dattri", "BasicProjector", "peers"),
)

TITLES = {"peers_ntkest_projection": "ntkest", "peers_traker": "traker", "peers_dattri": "dattri"}

ROWS = 64
"""Gradients that are drawn together."""

Cell = dict[str, Any]


class Projector(Contestant):
    """A process with one contestant."""

    program = "benchmarks.projection_worker"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file and the page that shows it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "benchmark": "projection",
        "command": shlex.join(["python", "-m", "benchmarks", "projection", *given]),
        "machine": machine(),
        "threads": options.threads,
        "rounds": options.rounds,
        "shape": [options.examples, options.parameters, options.dim],
        "floor": 2 * options.examples * options.parameters * options.dim,
        "gemm_flops": FLOPS,
        "kinds": {},
    }
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        file = Path(work, "gradients.npy")
        products = draw(file, options.examples, options.parameters)
        found["expected"] = digits(expected_error(products, options.dim))
        for kind in options.kind or KINDS:
            found["kinds"][kind] = race(kind, file, products, options)
            found["machine"]["load at the end"] = os.getloadavg()
            write(found, options.folder)
    print(f"wrote {options.folder / 'projection.md'}")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks projection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this; may be repeated")
    parser.add_argument("--examples", type=int, default=512, help="gradients, N (default: %(default)s)")
    parser.add_argument("--parameters", type=int, default=2**20, help="numbers of each, P (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=4096, help="features of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each, in turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everything")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="most memory of a contestant")
    parser.add_argument("--peers-python", help="interpreter of an environment with traker and dattri")
    parser.add_argument("--work", type=Path, help="folder for the gradients while they are needed")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    options = parser.parse_args(arguments)
    if min(options.examples, options.dim, options.rounds, options.threads, options.gigabytes) <= 0:
        parser.error("--examples, --dim, --rounds, --threads and --gigabytes take positive numbers")
    if options.parameters < options.dim:
        parser.error("--parameters is at least --dim")
    return options


def write(found: dict[str, Any], folder: Path) -> None:
    """The JSON file, and the page beside it."""
    (folder / "projection.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "projection.md").write_text(projection_page.markdown(found), encoding="utf-8")


def draw(file: Path, examples: int, parameters: int) -> np.ndarray:
    """Write gradients (N, P) to a file, and return their inner products.

    Sizes of parameters spread over orders of magnitude, and a part that all examples share, as gradients have them.
    """
    random = np.random.default_rng(0)
    sizes = np.exp(random.standard_normal(parameters, dtype=np.float32))
    shared = random.standard_normal(parameters, dtype=np.float32)
    gradients = np.lib.format.open_memmap(file, "w+", np.float32, (examples, parameters))
    for start in range(0, examples, ROWS):
        rows = gradients[start : start + ROWS]
        rows[:] = sizes * (0.5 * shared + random.standard_normal(rows.shape, dtype=np.float32))
    gradients.flush()
    products = np.zeros((examples, examples))
    for start in range(0, parameters, 2**14):
        part = gradients[:, start : start + 2**14]
        products += part @ part.T
    return products


def expected_error(products: np.ndarray, dim: int) -> float:
    """Of the inner products of features, relative to the norms of both gradients: √((1 + cos²)/dim), root mean square.

    For normal numbers, and for signs and many parameters of like size, too.
    """
    norms = np.sqrt(np.diag(products))
    return float(np.sqrt(np.mean(1 + (products / np.outer(norms, norms)) ** 2) / dim))


def inner_error(features: np.ndarray, products: np.ndarray) -> float:
    """The root mean square over pairs of what inner products of features are off, relative to the gradients' norms."""
    norms = np.sqrt(np.diag(products))
    wide = features.astype(np.float64)
    return float(np.sqrt(np.mean(((wide @ wide.T - products) / np.outer(norms, norms)) ** 2)))


def race(kind: str, file: Path, products: np.ndarray, options: argparse.Namespace) -> list[Cell]:
    """A cell for each contestant: how it was measured, or why it was not."""
    cells: dict[Entry, Cell] = {}
    alive: dict[Entry, Projector] = {}
    homes = {"own": sys.executable, "peers": options.peers_python}
    try:
        for entry in ENTRIES:
            title = TITLES[entry.module]
            print(f"{kind}, {title} ...", file=sys.stderr, flush=True)
            cells[entry] = {"library": title, "projector": entry.name, "samples": []}
            python = homes[entry.home]
            if python is None:
                cells[entry]["skipped"] = f"no environment for it was named (--{entry.home}-python)"
                continue
            try:
                arguments = (entry, python, f"{kind}:{options.dim}", file, options.threads, options.gigabytes)
                alive[entry] = Projector(*arguments)
                cells[entry] |= prepared(alive[entry], file.with_name("features.npy"), products)
            except GoneError as reason:
                give_up(entry, cells, alive, reason)
        for turn in range(options.rounds):
            for entry in list(alive)[:: -1 if turn % 2 else 1]:
                try:
                    answer = asked(alive[entry], "sample")
                    cells[entry]["samples"].append([digits(answer["seconds"]), digits(answer["gemm"])])
                except GoneError as reason:
                    give_up(entry, cells, alive, reason)
    finally:
        for contestant in alive.values():
            contestant.close()
    return list(cells.values())


def give_up(entry: Entry, cells: dict[Entry, Cell], alive: dict[Entry, Projector], reason: GoneError) -> None:
    """A contestant that cannot go on is out of the race, with the reason."""
    cells[entry]["skipped"] = str(reason)
    if entry in alive:
        alive.pop(entry).close()


def prepared(contestant: Projector, features: Path, products: np.ndarray) -> Cell:
    """Versions, first seconds, memory, and how far inner products are off."""
    answer = asked(contestant, "prepare", str(features.resolve()))
    found = {name: digits(answer[name]) for name in ("first", "bytes")}
    return {"versions": contestant.versions, **found, "error": digits(inner_error(np.load(features), products))}


def asked(contestant: Projector, *words: Any) -> dict[str, Any]:
    """An answer.

    Raises
    ------
    GoneError
    """
    answer = contestant.ask(*words)
    if "failed" in answer:
        raise GoneError(answer["failed"])
    return answer
