"""Distillation of tangent kernels on scikit-learn's digits: what combinations, points and students are worth.

``python -m benchmarks distilled`` writes docs/benchmarks/distilled.json, and the page and the figures beside it. Two
networks are trained from several seeds. The gradients of 500 images of each are combined in every way that there is,
and judged by images held out; every data stage chooses or makes points, whose kernel regression and whose tangent
space are judged; and new networks are trained on the points alone. Nothing is timed: networks and seeds share cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ntkest.atomic import write_whole

from . import distilled_page
from .commands import command
from .distilled_settings import EPOCHS, NETWORKS, STEPS, STUDENT_RATE

SIZES, COUNTS = (5, 10, 20, 40, 80), (2, 10, 50)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, and write the results."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks distilled", description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this; may be repeated")
    parser.add_argument("--seeds", type=int, default=8, help="of training and all else (default: %(default)s)")
    parser.add_argument("--stages", type=int, default=3, help="of them, for the data stage (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="s (default: %(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="points a class")
    parser.add_argument("--points", type=int, default=500, help="whose gradients are combined (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=2048, help="k, of the projection (default: %(default)s)")
    parser.add_argument("--images", type=int, help="for training, and as many held out; by default all there are")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of teachers (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of stages that go through the kernel; by default their own")
    parser.add_argument("--student-steps", type=int, default=STEPS, help="(default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--render", action="store_true", help="only write page and figures again, from the JSON file")
    options = parser.parse_args(given)
    numbers = (
        options.seeds,
        options.stages,
        options.epochs,
        options.student_steps,
        options.processes,
        *options.sizes,
        *options.counts,
    )
    if min(numbers) < 1 or max(options.sizes) > options.points:
        parser.error("numbers are positive, and --sizes at most --points")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "distilled.json"
    if not options.render:
        found = measure(options)
        found["command"] = command("distilled", given, without=("--folder", "--processes"))
        write_whole(file, (json.dumps(found, indent=1) + "\n").encode())
    distilled_page.write(json.loads(file.read_text(encoding="utf-8")), options.folder)
    print(f"wrote {file}, and the page and the figures beside it", file=sys.stderr)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks and seeds, what takes long first."""
    networks = [name for name in reversed(NETWORKS) if not options.network or name in options.network]
    settings = {
        "sizes": sorted(set(options.sizes)),
        "counts": sorted(set(options.counts)),
        "stages": min(options.stages, options.seeds),
        "points": options.points,
        "dim": options.dim,
        "images": options.images,
        "epochs": options.epochs,
        "steps": options.steps,
        "student steps": options.student_steps,
        "student rate": STUDENT_RATE,
    }
    tasks = [{"network": name, "seed": seed, **settings} for seed in range(options.seeds) for name in networks]
    with ThreadPoolExecutor(options.processes) as pool:
        cells = list(pool.map(_run, tasks))
    return {
        "benchmark": "distilled",
        **settings,
        "seeds": options.seeds,
        "versions": {name: version(name) for name in ("ntkest", "numpy", "torch", "scikit-learn")},
        "cells": sorted(cells, key=lambda cell: (NETWORKS.index(cell["network"]), cell["seed"])),
    }


def _run(task: dict[str, Any]) -> dict[str, Any]:
    """The worker's JSON."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1")}
    command = [sys.executable, "-m", "benchmarks.distilled_worker", json.dumps(task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{task['network']}, seed {task['seed']}: {found['seconds']:.0f} s", file=sys.stderr, flush=True)
    return found
