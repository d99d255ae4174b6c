"""Everything about one kernel from the same probes, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .columns import aligned
from .estimate import Estimate
from .inference import Quantity, effective_rank_of, frobenius_norm_of, target_alignment_of, trace_of
from .linearization import Linearization, number
from .quantities import measure

TITLES = {
    "trace": "trace",
    "frobenius_norm": "Frobenius norm",
    "effective_rank": "effective rank",
    "alignment": "alignment with targets",
}


@dataclass(frozen=True)
class Summary(Mapping[str, Estimate]):
    """Estimates by name: "trace", "frobenius_norm", "effective_rank" and, with targets, "alignment"."""

    estimates: Mapping[str, Estimate]
    shape: tuple[int, int] = field(default=(0, 0))
    """(M, P): outputs and parameters."""

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    @property
    def passes(self) -> int:
        """AD passes that all estimates together took: they share them."""
        return max(e.passes for e in self.estimates.values())

    def __str__(self) -> str:
        first = next(iter(self.estimates.values()))
        head = f"neural tangent kernel of {self.shape[0]} outputs, {self.shape[1]} parameters"
        cost = f"{first.method}, {self.passes} passes, {first.about.get('dtype', '')}"
        rows = [("", "value", "± std. error", "95 % interval")]
        rows += [(TITLES.get(name, name), *_cells(e)) for name, e in self.estimates.items()]
        lines = [head, cost, "", *aligned(rows)]
        if first.parts:
            lines += ["", *aligned(self._part_rows())]
        return "\n".join(lines)

    def _part_rows(self) -> list[tuple[str, ...]]:
        names = list(self.estimates)
        rows = [("by part", *(TITLES.get(name, name) for name in names))]
        first = self.estimates[names[0]]
        for part in first.parts:
            parts = [e.parts[part] for e in self.estimates.values()]
            rows.append((part, *(f"{float(e):.4g} ± {number(e.std_error):.1g}" for e in parts)))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "outputs": self.shape[0],
            "parameters": self.shape[1],
            "passes": self.passes,
            "estimates": {name: e.to_dict() for name, e in self.estimates.items()},
        }

    def plot(self, axes: Any = None) -> Any:
        """One chart a quantity, with its parts if there are any; needs matplotlib. Returns the array of axes."""
        from .plots import axes_or_new

        tall = 1.2 + 0.3 * len(next(iter(self.estimates.values())).parts)
        axes = axes_or_new(axes, columns=len(self.estimates), size=(3.6 * len(self.estimates), max(2.2, tall)))
        for ax, estimate in zip(axes, self.estimates.values(), strict=True):
            estimate.plot(ax)
        return axes


def summary(J: Linearization, targets: Any = None, **keywords: Any) -> Summary:
    """Trace, Frobenius norm, effective rank and, with targets, alignment, all from the same probes.

    Parameters
    ----------
    J : Linearization
    targets : array or integer labels, optional
        As for `alignment`.
    **keywords
        As in `ntkest.quantities`; ``rtol`` has to hold for every quantity.

    Returns
    -------
    Summary
        A mapping of `Estimate`; prints as a table. Costs what the most expensive of its quantities costs alone.
    """
    quantities: list[Quantity] = [trace_of(0), frobenius_norm_of(0), effective_rank_of(0)]
    if targets is not None:
        quantities.append(target_alignment_of(0))
    found = measure(J, quantities, targets=targets, **keywords)
    shape = (math.prod(J.outputs.shape), sum(math.prod(p.shape) for p in J.params))
    return Summary({e.quantity: e for e in found}, shape)


def _cells(e: Estimate) -> tuple[str, str, str]:
    low, high = e.interval(0.95)
    return f"{float(e):.5g}", f"{number(e.std_error):.2g}", f"{low:.4g} … {high:.4g}"
