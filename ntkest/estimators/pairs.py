"""Averages over pairs of probes, with what deleting one probe would leave.

‖K‖_F² and ⟨K₁, K₂⟩ are means of q_ij over pairs i ≠ j of probes (products of Gram entries). For the jackknife it is
enough to keep, for each probe, the sum of the q_ij that involve it: m numbers, not m².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from ..linearization import Array, beside
from .problem import Moment


@dataclass(frozen=True)
class PairSums:
    """Sums of q_ij over the pairs seen so far."""

    involving: tuple[Array, ...] = ()
    """Pieces (m_p, rows): for each probe, the sum of the ordered pairs that involve it."""
    counts: tuple[int, ...] = ()
    """For each probe, the number of ordered pairs that involve it."""
    total: Array | None = None
    """(rows,): the sum over all ordered pairs."""
    pairs: int = 0
    """The number of ordered pairs."""

    def add(
        self,
        xp: ModuleType,
        within: Array,
        across: Sequence[Array],
        lengths: Sequence[int],
        diagonal: bool,
    ) -> PairSums:
        """Sums after a new piece of n probes.

        `within` (rows, n, n) holds q_ij of the new piece; ``across[p]`` (rows, m_p, n) holds q_ij + q_ji
        of the p-th of the last ``len(across)`` pieces, whose lengths are `lengths`, with the new one. With `diagonal`
        the pairs (i, i) count too (probes i of two independent streams).
        """
        n = within.shape[1]
        own = xp.linalg.diagonal(within)  # (rows, n)
        both = xp.sum(within, axis=2) + xp.sum(within, axis=1)  # row and column sums, the diagonal in both
        new = both - own if diagonal else both - 2.0 * own
        added = xp.sum(within, axis=(1, 2)) if diagonal else xp.sum(within, axis=(1, 2)) - xp.sum(own, axis=1)
        pieces, counts = list(self.involving), list(self.counts)
        first = len(pieces) - len(across)
        start = len(counts) - sum(lengths)
        seen = 0
        for p, block in enumerate(across):
            new = new + xp.sum(block, axis=1)
            added = added + xp.sum(block, axis=(1, 2))
            pieces[first + p] = pieces[first + p] + xp.permute_dims(xp.sum(block, axis=2), (1, 0))
            seen += lengths[p]
        for i in range(start, len(counts)):
            counts[i] += 2 * n
        each = 2 * n - 1 if diagonal else 2 * (n - 1)
        fresh = n * n if diagonal else n * (n - 1)
        return replace(
            self,
            involving=(*pieces, xp.permute_dims(new, (1, 0))),
            counts=(*counts, *([each + 2 * seen] * n)),
            total=added if self.total is None else self.total + added,
            pairs=self.pairs + fresh + 2 * n * seen,
        )

    def moment(self, xp: ModuleType) -> Moment:
        """The mean over pairs, and the means without each probe."""
        assert self.total is not None
        involving = xp.concat(self.involving, axis=0)
        value = self.total / self.pairs
        left = beside(xp, [float(max(self.pairs - count, 1)) for count in self.counts], involving)
        return Moment(value, (self.total[None, :] - involving) / left[:, None])


def mean_moment(xp: ModuleType, samples: Array, offset: Array | float = 0.0) -> Moment:
    """The mean of samples (m, rows) plus an exact offset, and the means without each sample."""
    m = samples.shape[0]
    total = xp.sum(samples, axis=0)
    return Moment(offset + total / m, offset + (total[None, :] - samples) / (m - 1), offset)
