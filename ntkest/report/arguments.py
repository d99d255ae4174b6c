"""The parser of the command line."""

from __future__ import annotations

import argparse
import math
from typing import Any, NoReturn

from .. import __version__
from ..distilled.gradients import COMPRESSIONS
from ..distilled.points.stages import STAGES
from ..estimators import METHODS
from .problems import CommandError

DEFAULTS = {
    "targets": None,
    "method": "auto",
    "rtol": 0.05,
    "max_passes": 2000,
    "passes": None,
    "seed": 0,
    "by": None,
    "centered": False,
    "memory": "2GB",
}
"""What a number of `ntkest report` depends on beside TARGET; what ``--repeat`` takes from the document."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` turns into a line and an exit status."""
        raise CommandError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """The parser of `ntkest`."""
    top = Parser(
        prog="ntkest",
        description="How large, how low-rank and how well aligned is the neural tangent kernel of a network?",
        epilog="Exit status: 0; 1 if --repeat found other numbers; 2 after an error; 130 after Ctrl-C.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ntkest {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo(commands)
    _report(commands)
    _kernel(commands)
    _distill(commands)
    return top


def _demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits and report its kernel before and after",
        description="Train a small network on scikit-learn's digits by gradient descent through J.vjp, and report its "
        "neural tangent kernel on held-out digits before and after, by layer. Takes seconds.",
        allow_abbrev=False,
    )
    demo.set_defaults(repeat=None)
    _sampling(demo, rtol=0.05, max_passes=2000, seed=0)
    _output(demo)


def _report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="report the kernel of your own model",
        description="Report the neural tangent kernel of your own model, in any framework. This runs your code: the "
        "function that TARGET names takes no arguments and returns (model, *inputs), (f, params, *inputs) or "
        "a Linearization.",
        epilog="example: ntkest report model.py:make --targets labels.npy --by layer --json first.json",
        allow_abbrev=False,
    )
    report.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="module:function or file.py:function, looked for in the current folder first",
    )
    report.add_argument(
        "--targets",
        metavar="SOURCE",
        help="also report the alignment with these: FILE.npy, FILE.npz[:NAME] or FILE.csv of the outputs' shape, or "
        "integer labels; or module:function or file.py:function that returns them",
    )
    _sampling(report)
    report.add_argument("--passes", type=_count, metavar="N", help="a fixed cost in passes, instead of --rtol")
    report.add_argument("--method", choices=METHODS, metavar="NAME", help=f"{', '.join(METHODS)} (default: auto)")
    report.add_argument("--by", choices=("layer", "parameter"), help="also report each layer, or each parameter")
    report.add_argument("--centered", action="store_true", default=None, help="take HKH for K, H = I - 11ᵀ/M")
    report.add_argument("--memory", metavar="SIZE", help="budget for kept images, such as 512MB (default: 2GB)")
    _output(report)
    report.add_argument(
        "--repeat",
        metavar="FILE",
        help="run again what FILE, written by --json, records (it runs the TARGET named there), and say whether the "
        "numbers repeat",
    )


def _kernel(commands: Any) -> None:
    kernel = commands.add_parser(
        "kernel",
        help="write the exact kernel of your own model to disk",
        description="Write the exact neural tangent kernel between the examples of your own model to a zarr store, "
        "tile by tile. The same command goes on where an earlier one was stopped or killed. This runs your code, as "
        "`ntkest report` does.",
        epilog="example: ntkest kernel model.py:make --outputs sum --out K.zarr --memory 2GB --workers 2",
        allow_abbrev=False,
    )
    kernel.set_defaults(repeat=None, plot=None)
    kernel.add_argument("target", metavar="TARGET", help="module:function or file.py:function, as for ntkest report")
    kernel.add_argument("--out", metavar="STORE", required=True, help="the zarr store, a folder such as K.zarr")
    kernel.add_argument("--other", metavar="TARGET", help="the same model on other inputs: the kernel between the two")
    kernel.add_argument(
        "--outputs",
        type=_outputs,
        default="full",
        metavar="WHICH",
        help="full, trace, sum, pntk, signs:S, or the number of an output (default: full)",
    )
    kernel.add_argument("--by", choices=("layer", "parameter"), help="a kernel for each layer, or each parameter")
    kernel.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of signs:S (default: 0)")
    kernel.add_argument("--memory", default="2GB", metavar="SIZE", help="budget of each process (default: 2GB)")
    kernel.add_argument(
        "--workers", type=_count, metavar="N", help="processes that build the model each and share the tiles"
    )
    kernel.add_argument("--json", metavar="FILE", help="write what is printed")
    _safety(kernel)


def _distill(commands: Any) -> None:
    distill = commands.add_parser(
        "distill",
        help="distill the kernels of your own classifier into few gradients",
        description="Distill the tangent kernels of your own classifier, one a class, into few synthetic gradients of "
        "few numbers, with which ridge regression predicts what the network says. This runs your code: the function "
        "that TARGET names takes no arguments and returns (model, inputs), (f, params, inputs) or a Linearization.",
        epilog="example: ntkest distill model.py:make --labels labels.npy --data kmeans --points 50 --size 50 "
        "--test test.npy --out distilled.npz",
        allow_abbrev=False,
    )
    distill.set_defaults(repeat=None)
    distill.add_argument("target", metavar="TARGET", help="module:function or file.py:function, as for ntkest report")
    distill.add_argument("--out", metavar="FILE", help="write the distilled kernel, to be read by DistilledNTK.load")
    distill.add_argument("--labels", metavar="SOURCE", help="classes of the inputs, as --targets of ntkest report")
    distill.add_argument("--test", metavar="SOURCE", help="other inputs to be evaluated on: a file, or a function")
    distill.add_argument("--test-labels", metavar="SOURCE", help="their classes")
    distill.add_argument(
        "--data", default="identity", metavar="STAGE", help=f"{', '.join(STAGES)} (default: identity, all inputs)"
    )
    distill.add_argument("--points", type=_count, metavar="N", help="how many a class the stage chooses or makes")
    distill.add_argument("--dim", type=_count, metavar="K", help="dimensions of gradients (default: 4096, or less)")
    distill.add_argument("--kind", default="rademacher", metavar="KIND", help="of the projection (default: rademacher)")
    distill.add_argument(
        "--compression", default="local-global", metavar="NAME", help=f"{', '.join(COMPRESSIONS)} (default: the first)"
    )
    distill.add_argument("--size", type=_count, metavar="S", help="gradients in the end (default: by the thresholds)")
    distill.add_argument("--variance", type=_positive, metavar="T", help="part of the trace that eigenvectors hold")
    distill.add_argument("--coverage-threshold", type=_positive, metavar="T", help="global ones covered less are added")
    distill.add_argument("--clusters", type=_count, metavar="H", help="for local eigenvectors")
    distill.add_argument("--ridge", type=_positive, metavar="R", help="relative to the kernels' mean diagonal")
    distill.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of all random numbers (default: 0)")
    distill.add_argument("--memory", metavar="SIZE", help="budget for gradients, such as 512MB")
    distill.add_argument("--batch", type=_count, metavar="N", help="examples that are linearized together")
    distill.add_argument("--store", metavar="STORE", help="a zarr store for features, from which a stopped run goes on")
    distill.add_argument("--workers", type=_count, metavar="N", help="processes that share the gradients")
    _output(distill)


def _outputs(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _sampling(command: argparse.ArgumentParser, **defaults: Any) -> None:
    """Options of both commands that decide the numbers; `report` fills in DEFAULTS after looking at --repeat."""
    command.add_argument(
        "--rtol",
        type=_positive,
        metavar="R",
        help="sample until the 95 %% interval is at most ±R of the value (default: 0.05)",
    )
    command.add_argument("--max-passes", type=_count, metavar="N", help="most passes a kernel (default: 2000)")
    command.add_argument("--seed", type=_seed, metavar="N", help="seed of all random numbers (default: 0)")
    command.set_defaults(**defaults)


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", metavar="FILE", help="write the numbers, with all that is needed to repeat them")
    command.add_argument("--plot", metavar="FILE", help="draw the numbers with their intervals: .png, .svg or .pdf")
    _safety(command)


def _safety(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="replace files that exist")
    command.add_argument(
        "--traceback", action="store_true", help="show where an error comes from (also: NTKEST_TRACEBACK=1)"
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a positive number is needed, not {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive whole number is needed, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number from 0 on is needed, not {text!r}")
    return int(text)
