"""Averages over pairs of probes, with what deleting one probe would leave.

‖K‖_F² and ⟨K₁, K₂⟩ are means of q_ij over pairs i ≠ j of probes, where q_ij is a product of Gram entries. For the
jackknife it is enough to keep, for each probe, the sum of the q_ij that involve it: m numbers, not m².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from ..linearization import Array, beside
from .problem import Moment


@dataclass(frozen=True)
class PairSums:
    """Sums of q_ij over the ordered pairs seen so far."""

    involving: tuple[Array, ...] = ()
    """Pieces (m_p, rows): for each probe, the sum of the pairs that involve it."""
    total: Array | float = 0.0
    """(rows,): the sum over all pairs."""
    counts: tuple[int, ...] = ()
    """For each probe, the number of pairs that involve it."""
    pairs: int = 0
    """The number of pairs."""

    def grown(
        self, lengths: Sequence[int], new: int, involving: tuple[Array, ...], total: Array, diagonal: bool
    ) -> PairSums:
        """After a piece of `new` probes paired within and with the last pieces, of `lengths`; see `pair_sums`."""
        closed = self.involving[: len(self.involving) - len(lengths)]
        seen, before = sum(lengths), len(self.counts)
        open_counts = tuple(count + 2 * new for count in self.counts[before - seen :])
        each = 2 * new - 1 if diagonal else 2 * (new - 1)
        return PairSums(
            involving=(*closed, *involving),
            total=total,
            counts=(*self.counts[: before - seen], *open_counts, *([each + 2 * seen] * new)),
            pairs=self.pairs + (new * new if diagonal else new * (new - 1)) + 2 * new * seen,
        )

    def open(self, pieces: int) -> tuple[Array, ...]:
        """Sums of the last `pieces` pieces, those whose images are still kept."""
        return self.involving[len(self.involving) - pieces :]


def pair_sums(
    xp: ModuleType, within: Array, across: Sequence[Array], old: Sequence[Array], total: Array | float, diagonal: bool
) -> tuple[tuple[Array, ...], Array]:
    """Sums of involved pairs, for old pieces and then the new one, and the total, after a piece of n probes.

    `within` (rows, n, n) holds q_ij of the new piece; ``across[p]`` (rows, m_p, n) holds q_ij + q_ji of
    the old piece p with the new one. With `diagonal` the pairs (i, i) count too: probes i of two streams.
    """
    own = xp.linalg.diagonal(within)  # (rows, n)
    both = xp.sum(within, axis=2) + xp.sum(within, axis=1)  # the diagonal is in both
    new = both - own if diagonal else both - 2.0 * own
    total = total + xp.sum(within, axis=(1, 2))
    if not diagonal:
        total = total - xp.sum(own, axis=1)
    updated = []
    for block, before in zip(across, old, strict=True):
        new = new + xp.sum(block, axis=1)
        total = total + xp.sum(block, axis=(1, 2))
        updated.append(before + xp.permute_dims(xp.sum(block, axis=2), (1, 0)))
    return (*updated, xp.permute_dims(new, (1, 0))), total


def pair_moment(
    xp: ModuleType, counts: tuple[int, ...], pairs: int, involving: tuple[Array, ...], total: Array
) -> Moment:
    """The mean over pairs, and the means without each probe."""
    sums = xp.concat(involving, axis=0)
    left = beside(xp, [float(max(pairs - count, 1)) for count in counts], sums)
    return Moment(total / pairs, (total[None, :] - sums) / left[:, None])


def mean_moment(xp: ModuleType, pieces: tuple[Array, ...]) -> Moment:
    """The mean of samples (m, rows) in pieces, and the means without each sample."""
    samples = xp.concat(pieces, axis=0)
    m = samples.shape[0]
    total = xp.sum(samples, axis=0)
    return Moment(total / m, (total[None, :] - samples) / (m - 1))


def mean_moments(
    xp: ModuleType,
    counts: tuple[tuple[tuple[int, ...], int], ...],
    samples: tuple[tuple[Array, ...], ...],
    sums: tuple[tuple[tuple[Array, ...], Array], ...],
) -> tuple[tuple[Array, Array], ...]:
    """Values and replicates of means over samples, then of means over pairs; array-only."""
    means = [mean_moment(xp, pieces) for pieces in samples]
    pairs = [pair_moment(xp, *c, *s) for c, s in zip(counts, sums, strict=True)]
    return tuple((moment.value, moment.replicates) for moment in (*means, *pairs))


def append(pieces: tuple[tuple[Array, ...], ...], new: list[Array]) -> tuple[tuple[Array, ...], ...]:
    """Pieces of each kernel, with a new one for each."""
    before = pieces or ((),) * len(new)
    return tuple((*old, piece) for old, piece in zip(before, new, strict=True))
