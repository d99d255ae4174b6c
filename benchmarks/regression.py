"""Regression with tangent kernels on all of scikit-learn's digits, beside the network that they come from.

``python -m benchmarks regression`` writes docs/benchmarks/regression.json, and the page and the figure beside it. A
ConvNet is trained in torch and in jax; before and after, four kernels are computed, each in a process of its own, and
kernel ridge regression with each reads the images held out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ntkest.atomic import write_whole

from . import regression_page
from .commands import command
from .regression_data import CHANNELS, CLASSES, EPOCHS, TRAIN

KERNELS: dict[str, Any] = {"pNTK": "sum", "trace": "trace", "single logit": 0, "full": "full"}
"""Names, and ``outputs=``; the full one comes after the trace kernel, whose ridge it takes."""

POINTS = ("initial", "trained")
IMAGES = 1797


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, and write the results."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks regression", description=__doc__)
    parser.add_argument("--framework", choices=("torch", "jax"), action="append", help="only this; may be repeated")
    parser.add_argument("--kernel", choices=tuple(KERNELS), action="append", help="only this; may be repeated")
    parser.add_argument("--images", type=int, default=IMAGES, help="of which a fifth is held out")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of training (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for everything (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--render", action="store_true", help="only write page and figure again, from the JSON file")
    options = parser.parse_args(given)
    if options.threads < 1 or options.epochs < 1 or not 50 <= options.images <= IMAGES:
        parser.error(f"--threads and --epochs take positive numbers, --images 50 to {IMAGES}")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "regression.json"
    if not options.render:
        found = measure(options)
        found["command"] = command("regression", given)
        write_whole(file, (json.dumps(found, indent=1) + "\n").encode())
    regression_page.write(json.loads(file.read_text(encoding="utf-8")), options.folder)
    print(f"wrote {options.folder}/regression.json, regression.md and regression.svg", file=sys.stderr)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All frameworks, before and after training, all kernels."""
    frameworks = options.framework or ["torch", "jax"]
    kernels = [name for name in KERNELS if not options.kernel or name in options.kernel]
    if "full" in kernels and "trace" not in kernels:
        kernels.insert(0, "trace")
    train = TRAIN if options.images == IMAGES else options.images * 4 // 5
    networks, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for framework in frameworks:
            shared = {"framework": framework, "images": options.images, "train": train, "folder": folder}
            networks[framework] = _run({**shared, "work": "train", "epochs": options.epochs}, options.threads)
            for point in POINTS:
                ridge = None
                for name in kernels:
                    task = {**shared, "work": "kernel", "point": point, "outputs": KERNELS[name], "ridge": ridge}
                    row = _run(task, options.threads)
                    ridge = row["ridge"] if name == "trace" else ridge
                    rows.append({"framework": framework, "point": point, "kernel": name, **row})
                    print(f"{framework} {point} {name}: {row['accuracy']}", file=sys.stderr, flush=True)
    return {
        "benchmark": "regression",
        "images": options.images,
        "train": train,
        "epochs": options.epochs,
        "channels": list(CHANNELS),
        "classes": CLASSES,
        "threads": options.threads,
        "load": os.getloadavg()[2],
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("ntkest", "numpy", *frameworks)},
        "networks": networks,
        "rows": rows,
    }


def _run(task: dict[str, Any], threads: int) -> dict[str, Any]:
    """The worker's JSON."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    command = [sys.executable, "-m", "benchmarks.regression_worker", json.dumps(task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
