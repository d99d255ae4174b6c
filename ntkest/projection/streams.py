"""Words of random bits, each with a place in a stream, drawn wherever they are wanted.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np

from ..threads import Range

SIGNS, NORMALS, SPARSE = 8, 12, 16
"""Kinds of stream. `ntkest.probes` gives no linearization's own probes a multiple of four."""


class Stream:
    """The words of a seed and a kind: of a Philox counter generator, four 64-bit words a count.

    Not to be shared between threads.
    """

    def __init__(self, seed: int, kind: int) -> None:
        self._generator = np.random.Philox(key=np.asarray([seed, kind], dtype=np.uint64))
        self._state = self._generator.state

    def words(self, place: tuple[int, int, int], span: Range) -> np.ndarray:
        """A span of the words at a place, which is the three upper numbers of the counter."""
        start, stop = span
        skipped = start % 4
        self._state["state"]["counter"][:] = (start // 4, *place)
        self._generator.state = self._state  # a tenth of the time of a new generator
        drawn = self._generator.random_raw(skipped + stop - start)
        return np.asarray(drawn[skipped:], dtype="<u8")
