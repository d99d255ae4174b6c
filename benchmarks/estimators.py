"""The contest of estimators: ntkest beside matfree, traceax, curvlinops and skerch, at equal AD passes.

``python -m benchmarks estimators`` writes docs/benchmarks/estimators.json and the page estimators.md beside it. The
peers need an environment with ``benchmarks/peers.txt`` installed, whose interpreter is named by ``--peers-python``;
the Jacobians of the networks need autograd and scikit-learn (``python -m pip install ".[app]"``) the first time.

A process a library, or for ntkest a process an operator, each on a core of its own with one thread. Every cell is
written to a file when it is measured, and a run that was interrupted goes on where it stopped.

Of a hundred places that are even, some lie beyond the noise of fifty seeds. ``--again N`` measures those that the JSON
file has there with N further seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from . import estimators_page
from .contest_worker import Cell, identity, read
from .cores import available, pinned
from .operators import HELD_OUT, NAMES, NETWORKS, SIZE, operator
from .passes import POOLS, ROOT, machine

PEERS = ("matfree", "traceax", "curvlinops", "skerch")
LIBRARIES = ("ntkest", *PEERS)
BUDGETS = (20, 40, 80, 120, 200, 400)
SEEDS = 50


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure what is missing, and write the results."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    start = time.perf_counter()
    if options.again:
        found = json.loads(options.json.read_text(encoding="utf-8"))
        found["again"] = once_more(found, options)
        found["again_command"] = shlex.join(["python", "-m", "benchmarks", "estimators", *given])
        write(found, options.json)
        options.markdown.write_text(estimators_page.markdown(found), encoding="utf-8")
        print(f"wrote {options.json} and {options.markdown}", file=sys.stderr)
        return
    if set(options.operator) & set(NETWORKS):
        _run(0, sys.executable, ["-m", "benchmarks.trained", str(options.work)])
    options.work.mkdir(parents=True, exist_ok=True)
    for library in options.fresh:
        (options.work / f"{library}.jsonl").unlink(missing_ok=True)
    measure(options)
    found = gather(options)
    found["command"] = shlex.join(["python", "-m", "benchmarks", "estimators", *given])
    found["wall_seconds"] = round(time.perf_counter() - start)
    write(found, options.json)
    options.markdown.write_text(estimators_page.markdown(found), encoding="utf-8")
    print(f"wrote {options.json} and {options.markdown} after {found['wall_seconds']} s", file=sys.stderr)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks estimators", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each method (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="outputs of the operators (default: %(default)s)")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="AD passes of a run")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="libraries and operators to measure")
    parser.add_argument("--fresh", nargs="+", default=[], choices=LIBRARIES, help="measure these libraries again")
    parser.add_argument("--again", type=int, metavar="SEEDS", help="measure places beyond the noise with these more")
    parser.add_argument("--no-stress", action="store_true", help="leave the hard cases out")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of the peers' environment")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/contest"), help="Jacobians and cells measured so far")
    parser.add_argument("--json", type=Path, default=Path("docs/benchmarks/estimators.json"))
    parser.add_argument("--markdown", type=Path, default=Path("docs/benchmarks/estimators.md"))
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.only) - set(LIBRARIES) - set(NAMES))
    if unknown:
        parser.error(f"--only takes {', '.join((*LIBRARIES, *NAMES))}; not {', '.join(unknown)}")
    if min(options.seeds, options.jobs, *options.budgets) < 1 or not 10 < options.size <= SIZE:
        parser.error(f"--seeds, --jobs and --budgets take positive numbers, --size one from 11 to {SIZE}")
    options.library = [name for name in LIBRARIES if name in options.only] or list(LIBRARIES)
    options.operator = [name for name in NAMES if name in options.only] or list(NAMES)
    return options


def measure(options: argparse.Namespace) -> None:
    """Run the workers, `jobs` at a time."""
    common = ["--seeds", str(options.seeds), "--size", str(options.size), "--folder", str(options.work)]
    common += [word for budget in options.budgets for word in ("--budget", str(budget))]
    cores: SimpleQueue[int] = SimpleQueue()
    for number in range(options.jobs):
        cores.put(number)

    def work(job: tuple[str, list[str], bool]) -> None:
        library, names, stress = job
        python = sys.executable if library == "ntkest" else options.peers_python
        words = ["-m", "benchmarks.contest_worker", library, *common]
        words += ["--file", str(options.work / f"{library}.jsonl")] + ["--stress"] * stress
        core = cores.get()
        try:
            _run(core, python, words + [word for name in names for word in ("--operator", name)])
        finally:
            cores.put(core)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, _jobs(options)))


def once_more(found: dict[str, Any], options: argparse.Namespace) -> list[Cell]:
    """Cells of the places that are beyond the noise, with seeds that were not used before; a process a library."""
    places = sorted({(p.operator, p.budget, p.quantity) for p in estimators_page.beyond_the_noise(found)})
    words = ["--seeds", str(options.again), "--first-seed", str(found["seeds"]), "--size", str(found["size"])]
    if {operator for operator, *_ in places} & set(NETWORKS):
        _run(0, sys.executable, ["-m", "benchmarks.trained", str(options.work)])
    options.work.mkdir(parents=True, exist_ok=True)

    def cells(core: int, library: str) -> list[Cell]:
        file = options.work / f"{library}-again.jsonl"
        file.unlink(missing_ok=True)
        python = sys.executable if library == "ntkest" else options.peers_python
        for name, budget, quantity in places:
            where = ["--operator", name, "--budget", str(budget), "--quantity", quantity]
            where += ["--folder", str(options.work), "--file", str(file)]
            _run(core, python, ["-m", "benchmarks.contest_worker", library, *words, *where])
        read_back = [cell for cell in read(file) if "errors" in cell]
        return [c for c in read_back if (c["operator"], c["budget"], c["quantity"]) in places]

    with ThreadPoolExecutor(options.jobs) as pool:
        return [cell for part in pool.map(cells, range(len(options.library)), options.library) for cell in part]


def _jobs(options: argparse.Namespace) -> Iterator[tuple[str, list[str], bool]]:
    """Peers first, as they compile a program a budget once for all operators; then ours, operator by operator."""
    for library in options.library:
        if library != "ntkest":
            yield library, options.operator, not options.no_stress
    if "ntkest" in options.library:
        for name in options.operator:
            yield "ntkest", [name], False
        if not options.no_stress:
            yield "ntkest", [], True


def _run(core: int, python: str, words: list[str]) -> None:
    """A process with one thread on a core of its own."""
    env = {**os.environ, **dict.fromkeys(POOLS, "1"), "JAX_PLATFORMS": "cpu"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    cores = available()
    with pinned(cores and {cores[core % len(cores)]}):
        process = subprocess.Popen([python, *words], env=env)
    if process.wait():
        raise SystemExit(f"{python} {' '.join(words)} ended with status {process.returncode}")


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """All cells of this size and number of seeds, over those that the JSON file has from before."""
    before = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    same = before.get("seeds") == options.seeds and before.get("size") == options.size
    old = before["cells"] + before["stress"] if same else []
    cells = {identity(cell): cell for cell in old if cell["library"] not in options.fresh}
    versions: dict[str, str] = before["versions"] if same else {}
    for library in LIBRARIES:
        for cell in read(options.work / f"{library}.jsonl"):
            if "versions" in cell:
                versions = {**versions, **cell["versions"]}
            elif "stress" in cell or (cell["seeds"] == options.seeds and cell["size"] == options.size):
                cells[identity(cell)] = cell
    contest = [_without_seeds(cell) for cell in cells.values() if "stress" not in cell]
    names = [name for name in NAMES if any(cell["operator"] == name for cell in contest)]
    facts = before["operators"] if same else {}
    earlier = [*before.get("earlier_machines", []), before["machine"]] if same else []
    facts = {name: {**(facts.get(name) or _facts(name, options)), "held_out": name in HELD_OUT} for name in names}
    return {
        "benchmark": "estimators",
        "seeds": options.seeds,
        "size": options.size,
        "machine": machine(),
        "earlier_machines": [m for n, m in enumerate(earlier) if m not in (machine(), *earlier[:n])],
        "versions": versions,
        "operators": facts,
        "cells": contest,
        "stress": [cell for cell in cells.values() if "stress" in cell],
    }


def _without_seeds(cell: Cell) -> Cell:
    return {key: value for key, value in cell.items() if key != "seeds"}


def _facts(name: str, options: argparse.Namespace) -> dict[str, Any]:
    subject = operator(name, options.size, options.work)
    return {"shape": list(subject.jacobian.shape), "truth": subject.truth}


def write(found: dict[str, Any], file: Path) -> None:
    """JSON with a line a cell, replaced at once."""
    lists = {key: found[key] for key in ("cells", "stress", "again") if key in found}
    head = json.dumps({key: value for key, value in found.items() if key not in lists}, indent=1).removesuffix("\n}")
    body = [
        f' "{key}": [\n' + ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in cells) + "\n ]"
        for key, cells in lists.items()
    ]
    part = file.with_suffix(".part")
    part.write_text(f"{head},\n" + ",\n".join(body) + "\n}\n", encoding="utf-8")
    part.replace(file)
