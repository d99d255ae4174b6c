"""The whole pipeline of `ntkest.distill` on a residual network with more than a million parameters.

``python -m benchmarks pipeline`` writes docs/benchmarks/pipeline.json and the page beside it. The network is trained in
a process of its own; another distills it, scores it on images held out and analyses its kernels, and says how long
that took and how much memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ntkest.atomic import write_whole

from . import pipeline_page
from .commands import command
from .passes import machine
from .worker import versions

KINDS = ("sjlt", "rademacher", "gaussian")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, and write the results."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks pipeline", description=__doc__)
    parser.add_argument("--drawn", type=int, default=10000, help="images to train on (default: %(default)s)")
    parser.add_argument("--train", type=int, default=2000, help="N of them, to distill (default: %(default)s)")
    parser.add_argument("--held", type=int, default=500, help="images held out (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256], help="of the network's stages")
    parser.add_argument("--epochs", type=int, default=8, help="of training (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=4096, help="k (default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="of the projection (default: %(default)s)")
    parser.add_argument("--size", type=int, default=50, help="s (default: %(default)s)")
    parser.add_argument("--memory", default="256MB", help="for gradients at a time (default: %(default)s)")
    parser.add_argument("--others", type=int, nargs="*", default=[10, 20, 50, 100], help="s to compare with baselines")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for everything (default: %(default)s)")
    parser.add_argument(
        "--weights", type=Path, help="keep the trained network here, or take it from here if it is there"
    )
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--render", action="store_true", help="only write the page again, from the JSON file")
    options = parser.parse_args(given)
    if min(options.train, options.held, options.epochs, options.dim, options.size, options.threads) < 1:
        parser.error("--train, --held, --epochs, --dim, --size and --threads take positive numbers")
    if options.drawn < options.train:
        parser.error("--drawn takes at least as many as --train: those that are distilled are among them")
    if any(width < 8 or width % 8 for width in options.widths):
        parser.error("--widths takes multiples of 8, the groups of the norms")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "pipeline.json"
    if not options.render:
        found = measure(options)
        found["command"] = command("pipeline", given, without=("--folder", "--weights"))
        write_whole(file, (json.dumps(found, indent=1) + "\n").encode())
    page = pipeline_page.markdown(json.loads(file.read_text(encoding="utf-8")))
    (options.folder / "pipeline.md").write_text(page, encoding="utf-8")
    print(f"wrote {file} and pipeline.md", file=sys.stderr)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train, then distill."""
    names = ("drawn", "train", "held", "widths", "epochs", "dim", "kind", "size", "memory", "others")
    settings = {name: getattr(options, name) for name in names}
    load = machine()
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or Path(folder, "weights.pt")
        task = {**settings, "threads": options.threads, "folder": folder, "weights": str(weights)}
        network = _run({**task, "work": "train"})
        print(f"trained in {network['seconds']:.0f} s: {network['held']:.1%} right", file=sys.stderr, flush=True)
        found = _run({**task, "work": "distill"})
    return {
        "benchmark": "pipeline",
        "machine": load,
        "versions": versions("torch"),
        "threads": options.threads,
        "settings": settings,
        "network": network,
        **found,
    }


def _run(task: dict[str, Any]) -> dict[str, Any]:
    """The worker's JSON."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(task["threads"]))}
    environment["OMP_WAIT_POLICY"] = "passive"  # processor seconds are then of work, and not of waiting
    command = [sys.executable, "-m", "benchmarks.pipeline_worker", json.dumps(task)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
