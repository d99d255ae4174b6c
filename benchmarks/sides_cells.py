"""The map of sides from its raw errors: who wins at each network and budget, by how much, and what auto made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FAMILIES = {
    "reverse": ("reverse",),
    "forward": ("forward",),
    "leave-one-out": ("xnystrace", "xtrace", "xtrace-power"),
    "Hutch++": ("hutch++",),
}
"""The kinds of estimators that compete, and which methods stand for them; the better one, if there are two."""

ONE_SIDED = ("reverse", "forward")
EVEN = 1.25
"""Factors below this are noise: that between two equal methods is up to about 1.2 in two of three cells."""

ACCEPTED = 1.5
"""The ratio of auto to the best that is not remarked upon."""

FLOOR = 1e-4
"""Ratios are taken to errors of at least this size, below which nobody minds."""

RESAMPLED = 500
"""Times that seeds are drawn again, to see how far a ratio is luck."""

SHOWN = {
    **dict.fromkeys(("xnystrace", "xtrace", "xtrace-power"), "leave-one-out"),
    "hutch++": "Hutch++",
    "exact": "exact",
}
"""Families of methods that are not called like them."""


@dataclass(frozen=True)
class Place:
    """A network and a budget, with the rms relative error of each method; without any where exact is cheaper."""

    network: str
    passes: int
    errors: dict[str, float]
    chose: dict[str, int]
    surely: float = 1.0
    """A lower bound of 95 % on the ratio of auto to the best, by resampling of seeds."""

    @property
    def exact(self) -> bool:
        """Whether all rows or columns cost no more passes."""
        return not self.errors

    def family(self, name: str) -> float:
        """The least error of a family; infinite if it has no form for so few passes."""
        return min((self.errors[m] for m in FAMILIES[name] if m in self.errors), default=np.inf)

    @property
    def ranking(self) -> list[str]:
        """Families, the best first."""
        return sorted(FAMILIES, key=self.family)

    @property
    def winner(self) -> str:
        return self.ranking[0]

    @property
    def best(self) -> str:
        """The best method by name."""
        return min(FAMILIES[self.winner], key=lambda method: self.errors.get(method, np.inf))

    @property
    def factor(self) -> float:
        """The runner-up's error over the winner's."""
        first, second = (self.family(name) for name in self.ranking[:2])
        return max(second, FLOOR) / max(first, FLOOR)

    @property
    def even(self) -> bool:
        return self.factor < EVEN

    @property
    def auto(self) -> float:
        """The error of auto over the best one."""
        return max(self.errors["auto"], FLOOR) / max(self.errors[self.best], FLOOR)

    @property
    def auto_family(self) -> str:
        """What auto chose most often."""
        return family_of(next(iter(self.chose)))

    @property
    def gain(self) -> float:
        """The best one-sided error over the best error of a sketch."""
        sketches = min(self.family(name) for name in FAMILIES if name not in ONE_SIDED)
        return max(min(self.family(name) for name in ONE_SIDED), FLOOR) / max(sketches, FLOOR)


def family_of(method: str) -> str:
    return SHOWN.get(method, method)


def places(found: dict[str, Any], quantity: str) -> dict[tuple[str, int], Place]:
    """All places of a quantity, by network and passes."""
    runs: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    chose: dict[tuple[str, int], dict[str, int]] = {}
    for cell in found["cells"]:
        if cell["quantity"] == quantity and "errors" in cell:
            where = cell["network"], cell["passes"]
            runs.setdefault(where, {})[cell["method"]] = np.asarray(cell["errors"])
            if cell["method"] == "auto":
                chose[where] = cell["chose"]
    return {
        (name, passes): _place(name, passes, runs.get((name, passes), {}), chose.get((name, passes), {}))
        for name in found["networks"]
        for passes in found["budgets"]
    }


def _place(name: str, passes: int, runs: dict[str, np.ndarray], chose: dict[str, int]) -> Place:
    place = Place(name, passes, {method: float(_rms(errors)) for method, errors in runs.items()}, chose)
    if place.exact:
        return place
    auto, best = runs["auto"], runs[place.best]
    drawn = np.random.default_rng(0).integers(len(auto), size=(RESAMPLED, len(auto)))  # both at the same seeds
    ratios = np.maximum(_rms(auto[drawn]), FLOOR) / np.maximum(_rms(best[drawn]), FLOOR)
    return replace(place, surely=float(np.quantile(ratios, 0.05)))


def _rms(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(errors), axis=-1))


def sampled(found: dict[str, Any], quantity: str) -> Iterator[Place]:
    """Those where sampling is cheaper than exact."""
    return (place for place in places(found, quantity).values() if not place.exact)
