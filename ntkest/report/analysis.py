"""`ntkest report`: the kernel of the user's own model."""

from __future__ import annotations

import time
from argparse import Namespace

from .. import usercode
from ..estimate import Estimate
from ..linearization import Linearization
from ..summary import TITLES, Summary, summary
from . import targetdata
from .arguments import DEFAULTS
from .progress import Stages
from .run import Run
from .tables import Facts, Note, Section, Table, cell, ends, percent

KEYWORDS = ("method", "rtol", "max_passes", "passes", "seed", "by", "centered", "memory")
"""Options that go to `ntkest.summary` as they are."""


def run(options: Namespace, stages: Stages) -> Run:
    """Make the linearization and the targets, and measure. Costs what `ntkest.summary` costs."""
    with usercode.importable(options.target):
        return _run(options, stages)


def _run(options: Namespace, stages: Stages) -> Run:
    start = time.perf_counter()
    J = usercode.linearized(options.target)
    targets = None if options.targets is None else targetdata.place(J.outputs, targetdata.load(options.targets))
    loaded = time.perf_counter()
    with stages("passes") as report:
        found = summary(J, targets, progress=report, **{name: getattr(options, name) for name in KEYWORDS})
    seconds = {"load": loaded - start, "estimate": time.perf_counter() - loaded}
    interrupted = bool(found["trace"].about.get("interrupted"))
    return Run(
        command="report",
        target=options.target,
        title=f"The neural tangent kernel of {options.target}",
        options={name: getattr(options, name) for name in DEFAULTS},
        sections=_sections(found, J, options, seconds, interrupted),
        results=found.to_dict(),
        seconds=seconds,
        summaries={options.target: found},
        interrupted=interrupted,
    )


def _sections(
    found: Summary, J: Linearization, options: Namespace, seconds: dict[str, float], interrupted: bool
) -> list[Section]:
    trace = found["trace"]
    outputs, parameters = found.shape
    shape = " × ".join(str(n) for n in J.outputs.shape) or "1"
    facts = [
        ("model", f"{parameters:,} parameters, {trace.about['dtype']} on {trace.about['device']}"),
        ("outputs", shape if len(J.outputs.shape) < 2 else f"{shape} = {outputs:,}"),
        ("method", f"{trace.method}" + (f" ({trace.why.partition(': ')[2]})" if trace.why else "")),
        ("cost", f"{_cost(trace)}, {seconds['estimate']:.2f} s, seed {options.seed}"),
    ]
    if options.centered:
        facts.insert(2, ("kernel", "centred: H K H with H = I - 11ᵀ/M"))
    sections: list[Section] = [Facts(f"The neural tangent kernel of {options.target}", facts), _whole(found)]
    if trace.parts:
        sections.append(_parts(found, options.by))
    return [*sections, Note(_note(found, options, interrupted))]


def _cost(e: Estimate) -> str:
    kinds = [f"{count:,} {kind}" for count, kind in ((e.n_vjp, "VJPs"), (e.n_jvp, "JVPs")) if count]
    return f"{e.passes:,} passes ({', '.join(kinds)})"


def _whole(found: Summary) -> Table:
    rows = []
    for name, e in found.items():
        rows.append((TITLES[name], cell(e), ends(e)))
    return Table(("", "value", "95 % interval"), rows)


def _parts(found: Summary, by: str) -> Table:
    short = {"frobenius_norm": "Frob. norm", "effective_rank": "eff. rank", "alignment": "alignment"}
    rows = [(part, *(cell(e.parts[part]) for e in found.values())) for part in found["trace"].parts]
    return Table((f"by {by}", *(short.get(name, name) for name in found)), rows)


def _note(found: Summary, options: Namespace, interrupted: bool) -> str:
    missed = [TITLES[name] for name, e in found.items() if not e.converged]
    note = "± is half of the 95 % interval. "
    if interrupted:
        return note + "Interrupted: these are the numbers of the probes until then."
    if found["trace"].method == "exact":
        return "Exact to rounding."
    if options.passes is not None:
        return note + f"The cost was fixed by --passes {options.passes}."
    if missed:
        return (
            note + f"{percent(options.rtol)} of the value was not reached for {', '.join(missed)}: raise --max-passes."
        )
    return note + f"All reached the tolerance, {percent(options.rtol)} of the value."
