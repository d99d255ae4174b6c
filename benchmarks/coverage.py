"""Bias, error bars and coverage of every estimator over many seeds, on kernels whose quantities are known.

``python -m benchmarks coverage`` writes docs/benchmarks/coverage.json and docs/benchmarks/coverage.md. It needs
autograd and scikit-learn (``python -m pip install ".[app]"``).
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scipy
from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

import ntkest
from ntkest.inference import effective_rank_of, frobenius_norm_of, target_alignment_of
from ntkest.quantities import measure

from .jacobians import Case, cases

METHODS = (
    "reverse",
    "forward",
    "hutchinson",
    "hutch++",
    "hutch++jv",
    "nystrom++",
    "adaptive-hutch++",
    "xnystrace",
    "xtrace",
    "xtrace-power",
    "auto",
)
QUANTITIES = (
    "trace",
    "frobenius_norm",
    "effective_rank",
    "alignment with targets",
    "alignment of two kernels",
)
BUDGETS = (24, 48, 120)
"""Passes of a run; twice as many for two kernels."""

LEVEL, LOW, HIGH = 0.95, 0.90, 0.99
"""The level of the intervals, and what of their coverage is called good."""

EXACT = 1e-10
"""Below this relative spread an estimator has found the value, and only rounding is left."""


def main(argv: list[str] | None = None) -> int:
    """Measure, and write the JSON file and the page that shows it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks coverage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=400, help="runs of each estimator (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    parser.add_argument("--workers", type=int, default=1, help="processes, a kernel each (default: %(default)s)")
    parser.add_argument("--method", choices=METHODS, help="only this one again, and all others from the JSON file")
    parser.add_argument("--render", action="store_true", help="only write the page again, from the JSON file")
    options = parser.parse_args(argv)
    data, page = options.folder / "coverage.json", options.folder / "coverage.md"
    before = json.loads(data.read_text(encoding="utf-8")) if options.method else {"cells": [], "seeds": options.seeds}
    if before["seeds"] != options.seeds:
        parser.error(f"the cells that are there are of {before['seeds']} seeds, not of {options.seeds}")
    if not options.render:
        start, cells = time.perf_counter(), [c for c in before["cells"] if c["method"] != options.method]
        numbers, methods = range(sum(1 for _ in cases())), [options.method] if options.method else METHODS
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            kernels = pool.map(_numbered, numbers, repeat(options.seeds), repeat(methods))
            for number, found in zip(numbers, kernels, strict=True):
                cells += found
                print(f"kernel {number}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        words = f" --seeds {options.seeds}" if options.seeds != 400 else ""
        words += f" --method {options.method}" if options.method else ""
        found = {
            "command": "python -m benchmarks coverage" + words,
            "before": [] if not options.method else [*before.get("before", []), before["command"]],
            "seeds": options.seeds,
            "level": LEVEL,
            "seconds": round(time.perf_counter() - start),
            "workers": options.workers,
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
            "machine": platform.machine(),
            "cells": cells,
        }
        options.folder.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join(json.dumps(cell) for cell in found.pop("cells"))
        head = json.dumps(found, indent=1).removesuffix("\n}")
        data.write_text(f'{head},\n "cells": [\n{rows}\n ]\n}}\n', encoding="utf-8")
    page.write_text(rendered(json.loads(data.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"wrote {page}")
    return 0


def _numbered(number: int, seeds: int, methods: Sequence[str]) -> list[dict]:
    """The cells of one kernel, on one thread."""
    with threadpool_limits(1):
        return measured(next(islice(cases(), number, None)), seeds, methods)


# Measuring ------------------------------------------------------------------------------------------------------------


def measured(case: Case, seeds: int, methods: Sequence[str] = METHODS) -> list[dict]:
    """One cell for each method, budget and quantity that the budget has enough passes for."""
    truth, cells = case.truth(), []
    for method in methods:
        for passes in BUDGETS:
            runs = [estimates(case, method, passes, seed) for seed in range(seeds)]
            for name in runs[0]:
                cell = {"kernel": case.name, "method": method, "passes": passes, "quantity": name}
                cells.append({**cell, **judged([run[name] for run in runs], truth[name], name)})
    return cells


def estimates(case: Case, method: str, passes: int, seed: int) -> dict[str, ntkest.Estimate]:
    """All quantities from one seed: trace alone, norm, rank and target alignment together, and two kernels."""
    J, other = ntkest.from_jacobian(case.jacobian), ntkest.from_jacobian(case.other)
    keywords = {"method": method, "passes": passes, "seed": seed}
    one = [frobenius_norm_of(0), effective_rank_of(0)]
    try:
        found = measure(J, [*one, target_alignment_of(0)], targets=case.targets, **keywords)
    except ntkest.NTKError:  # targets take a pass more, which a method may not have
        found = measure(J, one, **keywords)
    two = ntkest.alignment(J, other, **{**keywords, "passes": 2 * passes})
    estimates = (ntkest.trace(J, **keywords), *found, two)
    names = [name for name in QUANTITIES if name != "alignment with targets" or len(found) > len(one)]
    return dict(zip(names, estimates, strict=True))


def judged(found: list[ntkest.Estimate], truth: float, name: str) -> dict:
    """What the runs say about the value, the error bar and the interval."""
    values = np.asarray([float(e) for e in found])
    errors = np.asarray([float(e.std_error) for e in found])
    ends = np.asarray([e.interval(LEVEL) for e in found])
    power = 2 if name == "frobenius_norm" else 1  # the square is what is unbiased
    spread = values.std(ddof=1)
    moment = values**power
    return {
        "truth": _digits(truth),
        "spread": _digits(spread / abs(truth)),
        "bias": _digits((values.mean() - truth) / abs(truth)),
        "z": _digits((moment.mean() - truth**power) / max(moment.std(ddof=1), 1e-300) * len(found) ** 0.5),
        "error_over_spread": _digits(np.sqrt((errors**2).mean()) / max(spread, 1e-300)),
        "coverage": float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))),
        "below": float(np.mean(truth > ends[:, 1])),
        "above": float(np.mean(truth < ends[:, 0])),
    }


def _digits(number: float) -> float:
    return float(f"{number:.4g}")


# The page -------------------------------------------------------------------------------------------------------------


def rendered(found: dict) -> str:
    """The page as Markdown."""
    cells = {(c["quantity"], c["method"], c["passes"], c["kernel"]): c for c in found["cells"]}
    names = list(dict.fromkeys(c["kernel"] for c in found["cells"]))
    sampled = [c for c in found["cells"] if c["spread"] > EXACT]
    good = sum(LOW <= c["coverage"] <= HIGH for c in sampled)
    low = sum(c["coverage"] < LOW for c in sampled)
    high = sum(c["coverage"] > HIGH for c in sampled)
    head = [
        "# Measured coverage",
        "",
        f"Written by {', then '.join(f'`{c}`' for c in [*found.get('before', []), found['command']])} "
        f"(the last: {found['seconds']} s in {found['workers']} processes, NumPy "
        f"{found['versions']['numpy']}); "
        "all numbers are in [coverage.json](coverage.json). Do not edit.",
        "",
        f"Each cell is the share of {found['seeds']} seeds whose {LEVEL:.0%} interval holds the true value, for a "
        "fixed number of passes (twice as many for two kernels). Six kernels have known spectra; four are those of "
        "small networks on scikit-learn's digits. `=`: found to rounding, so there is no sampling error to cover; "
        "`—`: too few passes for it. "
        f"Bold: outside {LOW:.2f} to {HIGH:.2f}. Even at a true coverage of 0.95, {found['seeds']} seeds show it only "
        f"to about ±{1.96 * (0.95 * 0.05 / found['seeds']) ** 0.5:.2f}.",
        "",
        f"Of {len(sampled)} cells with a sampling error, {good} lie within, {low} below and {high} above.",
        "",
    ]
    return "\n".join([*head, *_coverage(cells, names), *_moments(cells, names)]) + "\n"


def _coverage(cells: dict, names: list[str]) -> list[str]:
    lines = []
    for quantity in QUANTITIES:
        lines += [f"## Coverage: {quantity.replace('_', ' ')}", ""]
        lines += [_row("method", "passes", *names), _row(*["---"] * (2 + len(names)))]
        for method in METHODS:
            for passes in BUDGETS:
                row = [cells.get((quantity, method, passes, name)) for name in names]
                spent = 2 * passes if quantity == "alignment of two kernels" else passes
                lines.append(_row(f"`{method}`", spent, *(_share(c) for c in row)))
        lines.append("")
    return lines


def _share(cell: dict | None) -> str:
    if cell is None:
        return "—"
    if cell["spread"] <= EXACT:
        return "="
    text = f"{cell['coverage']:.3f}".lstrip("0")
    return text if LOW <= cell["coverage"] <= HIGH else f"**{text}**"


def _moments(cells: dict, names: list[str]) -> list[str]:
    lines = [
        "## Spread, bias and error bars",
        "",
        "Over the ten kernels, without those found to rounding: the median of the true relative spread; the range of "
        "`std_error` (root mean square) over the true spread; and the largest bias in units of that spread, with its "
        "z-score over the seeds. Traces and squares of norms are unbiased, so that their z is a normal number; "
        "the others are ratios, and biased by design within a fraction of their error bar. The z of a norm is that of "
        "its square.",
        "",
        _row("quantity", "method", "passes", "spread", "std_error / spread", "bias / spread", "z"),
        _row(*["---"] * 7),
    ]
    for quantity in QUANTITIES:
        for method in METHODS:
            for passes in BUDGETS:
                row = [cells.get((quantity, method, passes, name)) for name in names]
                row = [cell for cell in row if cell and cell["spread"] > EXACT]
                if not row:
                    continue
                ratios = [c["error_over_spread"] for c in row]
                worst = max(row, key=lambda c: abs(c["bias"] / c["spread"]))
                z = max((c["z"] for c in row), key=abs)
                spent = 2 * passes if quantity == "alignment of two kernels" else passes
                lines.append(
                    _row(
                        quantity.replace("_", " "),
                        f"`{method}`",
                        spent,
                        f"{np.median([c['spread'] for c in row]):.2g}",
                        f"{min(ratios):.2f} … {max(ratios):.2f}",
                        f"{worst['bias'] / worst['spread']:+.2f}",
                        f"{z:+.1f}",
                    )
                )
    return lines


def _row(*entries: object) -> str:
    return "| " + " | ".join(map(str, entries)) + " |"


if __name__ == "__main__":
    sys.exit(main())
