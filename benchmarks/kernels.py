"""Exact kernels and the exact trace: ntkest beside other libraries, and beside what the products alone would take.

``python -m benchmarks kernels`` writes docs/benchmarks/kernels.json and the page kernels.md beside it. nngeometry and
neural-tangents run in environments of their own, whose interpreters are named by ``--peers-python`` and
``--nt-python``; without one, its contestants are left out:

    python -m venv ENV && ENV/bin/python -m pip install -r benchmarks/peers_kernels.txt
    python3.11 -m venv ENV && ENV/bin/python -m pip install -r benchmarks/peers_neural_tangents.txt

A process a contestant. All of a network's are alive together and take turns, each with products of matrices before and
after its own, so that what else the machine does meets them alike.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import kernels_page
from .contest_worker import digits
from .gemm import FLOPS
from .kernels_contestants import KERNELS, TRACES, Contestant, Entry, GoneError
from .kernels_networks import KINDS, NETWORKS, Network, floor, read
from .kernels_truth import FEW, truth
from .passes import machine

ACCURATE = 1e-4
"""The largest error, against the largest entry, of a kernel in float32 that is taken to be right."""

TOGETHER = 20.0
"""Seconds for all samples of a contestant: where a call takes long there are fewer of them, at least one."""

FIRST, STRIDE = 64, 8
"""The first trial takes a 64th of the examples; the next takes 8 times as many if that is sure to fit, else twice."""

Cell = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file and the page that shows it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parsed(given)
    found: dict[str, Any] = {
        "benchmark": "kernels",
        "command": shlex.join(["python", "-m", "benchmarks", "kernels", *given]),
        "machine": machine(),
        "threads": options.threads,
        "rounds": options.rounds,
        "limits": {"seconds": options.seconds, "bytes": 1e9 * options.gigabytes},
        "gemm_flops": FLOPS,
        "races": [],
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = kept_races(options) if options.keep else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.network or NETWORKS:
            for kind in NETWORKS[name].kinds:
                if kind in (options.kind or KINDS):
                    race = Race(NETWORKS[name], kind, options, Path(folder)).run()
                    kept[name, kind] = {**race, "command": found["command"]}
                    found["races"] = [kept[which] for which in order() if which in kept]
                    found["machine"]["load at the end"] = os.getloadavg()
                    write(found, options.folder)
    print(f"wrote {options.folder / 'kernels.md'}")


def order() -> list[tuple[str, str]]:
    """Network and kind of all races, as the page has them."""
    return [(name, kind) for name, network in NETWORKS.items() for kind in network.kinds]


def kept_races(options: argparse.Namespace) -> dict[tuple[str, str], Cell]:
    """Those of earlier runs, each with the command that made it."""
    old = json.loads((options.folder / "kernels.json").read_text(encoding="utf-8"))
    return {(race["network"], race["kind"]): {"command": old["command"], **race} for race in old["races"]}


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this; may be repeated")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this; may be repeated")
    parser.add_argument("--framework", choices=("torch", "jax"), action="append", help="only this; may be repeated")
    parser.add_argument("--peer", action="append", help="only peers with this in their names; may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each, in turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everything")
    parser.add_argument("--seconds", type=float, default=60.0, help="most seconds of a call (default: %(default)s)")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="most memory of a call (default: %(default)s)")
    parser.add_argument("--peers-python", help="interpreter of an environment with nngeometry")
    parser.add_argument("--nt-python", help="interpreter of an environment with neural-tangents")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--keep", action="store_true", help="keep what earlier runs found of kernels not measured now")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.threads, options.seconds, options.gigabytes) <= 0:
        parser.error("--rounds, --threads, --seconds and --gigabytes take positive numbers")
    return options


def write(found: dict[str, Any], folder: Path) -> None:
    """The JSON file, and the page beside it."""
    (folder / "kernels.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "kernels.md").write_text(kernels_page.markdown(found), encoding="utf-8")


class Race:
    """All contestants on one kernel of one network."""

    def __init__(self, network: Network, kind: str, options: argparse.Namespace, folder: Path) -> None:
        self.network, self.kind, self.options, self.folder = network, kind, options, folder
        self.file = folder / f"{network.name}.npz"
        np.savez(self.file, **network.draw())
        self.homes = {"own": sys.executable, "peers": options.peers_python, "nt": options.nt_python}

    def run(self) -> Cell:
        """A cell for each contestant: how it was measured, or why it was not."""
        entries = [
            entry
            for entry in (TRACES if self.kind == "trace" else KERNELS)
            if entry.framework in (self.options.framework or ("torch", "jax"))
            and (entry.ours or any(word in entry.title for word in self.options.peer or [""]))
        ]
        cells: dict[Entry, Cell] = {}
        alive: dict[Entry, Contestant] = {}
        try:
            for entry in entries:
                print(f"{self.network.name}, {self.kind}, {entry.title} ...", file=sys.stderr, flush=True)
                cells[entry] = {"framework": entry.framework, "title": entry.title, "ours": entry.ours}
                guarded(cells[entry], alive, entry, lambda entry=entry: self.start(entry, cells[entry], alive))
            self.judge(cells, alive)
            self.turns(cells, alive)
        finally:
            for contestant in alive.values():
                contestant.close()
        return {
            "network": self.network.name,
            "title": self.network.title,
            "examples": self.network.examples,
            "kind": self.kind,
            "floor": floor(self.network, self.kind),
            "contestants": list(cells.values()),
        }

    def start(self, entry: Entry, cell: Cell, alive: dict[Entry, Contestant]) -> None:
        """Start its process, and find how many examples it can take."""
        python = self.homes[entry.home]
        if python is None:
            cell["skipped"] = f"no environment for it was named (--{entry.home}-python)"
            return
        options, whole = self.options, self.network.examples
        alive[entry] = self.process(entry, python)
        cell["versions"] = alive[entry].versions
        first = whole if entry.ours or self.kind == "trace" else max(1, whole // FIRST)
        for examples, trial in trials(alive[entry], first, whole, options.seconds, 1e9 * options.gigabytes):
            if "failed" in trial:
                cell["stopped"] = {"examples": examples, "reason": trial["failed"]}
            elif "beyond" in trial:
                cell["stopped"] = {"examples": examples, "reason": trial["beyond"]}
            else:
                cell |= {"examples": examples, "trial": {k: digits(v) for k, v in trial.items()}}
        if "examples" not in cell:
            cell["skipped"] = cell.pop("stopped")["reason"]
            return
        cell["floor"] = floor(self.network, self.kind, cell["examples"])
        if alive[entry].process.poll() is not None:  # it went too far, and goes on with what it can
            alive[entry].close()
            alive[entry] = self.process(entry, python)

    def process(self, entry: Entry, python: str) -> Contestant:
        """A new one."""
        return Contestant(entry, python, self.kind, self.file, self.options.threads, self.options.gigabytes)

    def judge(self, cells: dict[Entry, Cell], alive: dict[Entry, Contestant]) -> None:
        """Errors against the truth, and against ours; who is wrong is not timed."""
        expected = truth(read(self.file, self.network.examples), self.kind)
        for entry, cell in cells.items():
            if entry in alive and "examples" in cell and entry.checked:
                guarded(cell, alive, entry, lambda e=entry, c=cell: self.compare(e, c, cells, alive, expected))

    def compare(
        self,
        entry: Entry,
        cell: Cell,
        cells: dict[Entry, Cell],
        alive: dict[Entry, Contestant],
        expected: np.ndarray,
    ) -> None:
        """The error of one, and how far it is from ours."""
        n = cell["examples"]
        found = self.fetched(alive[entry], n)
        cell["error"] = error(found, expected, len(found) // n if found.ndim else 0)
        if not cell["error"] <= ACCURATE:
            cell["wrong"] = True
        for e in [e for e in alive if e.ours and e.framework == entry.framework and "skipped" not in cells[e]]:
            reference = self.fetched(alive[e], n)
            if reference.shape == found.shape:
                cell["from ours"] = digits(float(np.linalg.norm(found - reference) / np.linalg.norm(reference)))

    def fetched(self, contestant: Contestant, examples: int) -> np.ndarray:
        """Its kernel."""
        file = self.folder / "kernel.npy"
        answer = contestant.ask("save", examples, str(file.resolve()))
        if "failed" in answer:
            raise GoneError(answer["failed"])
        return np.load(file)

    def turns(self, cells: dict[Entry, Cell], alive: dict[Entry, Contestant]) -> None:
        """Samples of everybody in turns, the order reversed from one to the next; ours at all numbers of examples."""
        jobs = []
        for entry, cell in cells.items():
            if entry in alive and "examples" in cell and not cell.get("wrong") and "skipped" not in cell:
                others = {c["examples"] for e, c in cells.items() if e.framework == entry.framework and "examples" in c}
                for n in sorted(others) if entry.ours else [cell["examples"]]:
                    cell.setdefault("samples", {})[str(n)] = []
                    jobs.append((entry, cell, n))
        for turn in range(self.options.rounds):
            for entry, cell, n in jobs[:: -1 if turn % 2 else 1]:
                estimate = cell["trial"]["seconds"]
                if entry in alive and turn <= TOGETHER / estimate:
                    guarded(cell, alive, entry, lambda e=entry, c=cell, n=n: sampled(alive[e], c, n))


def sampled(contestant: Contestant, cell: Cell, examples: int) -> None:
    """One sample more."""
    answer = contestant.ask("sample", examples)
    if "failed" in answer:
        raise GoneError(answer["failed"])
    cell["samples"][str(examples)].append([digits(answer["seconds"]), digits(answer["gemm"])])


def guarded(cell: Cell, alive: dict[Entry, Contestant], entry: Entry, work: Callable[[], None]) -> None:
    """Do it; a contestant that cannot go on is out of the race, with the reason."""
    try:
        work()
    except GoneError as reason:
        cell["skipped"] = str(reason)
        if entry in alive:
            alive.pop(entry).close()


def trials(
    contestant: Contestant, first: int, whole: int, most_seconds: float, most_bytes: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Ever more examples, up to all, as long as neither time nor memory threaten to exceed what is allowed.

    Time is taken to grow with the square of the number of examples. So is memory at first, and then as it has grown.
    """
    n, power, before = first, 2.0, None
    while True:
        try:
            trial = contestant.ask("prepare", n)
        except GoneError as reason:
            yield n, {"failed": str(reason)}
            return
        yield n, trial
        if n == whole or "failed" in trial:
            return
        if before is not None and min(before[1], trial["bytes"]) > 1e6:
            power = min(2.0, max(1.0, math.log(trial["bytes"] / before[1]) / math.log(n / before[0])))
        before = n, trial["bytes"]
        factors = [min(f, whole / n) for f in (STRIDE, 2)]
        fits = [
            f
            for f in factors
            if max(trial["seconds"] * f**2 / most_seconds, trial["bytes"] * f**power / most_bytes) <= 1
        ]
        if not fits:
            wanted = round(n * factors[-1])
            told = f"{trial['seconds']:.2g} s and {trial['bytes'] / 1e9:.2g} GB for {n} examples"
            yield wanted, {"beyond": f"at most {most_seconds:g} s and {most_bytes / 1e9:g} GB; {told}"}
            return
        n = round(n * fits[0])


def error(found: np.ndarray, expected: np.ndarray, outputs: int) -> float:
    """Of the block of the first examples, the largest against its largest entry."""
    few = min(FEW * outputs, len(found)) if outputs else 0
    block, wanted = (found[:few, :few], expected[:few, :few]) if outputs else (found, expected)
    if block.shape != wanted.shape:
        return math.inf
    return digits(float(np.max(np.abs(block - wanted)) / np.max(np.abs(wanted))))
