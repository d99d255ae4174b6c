"""How many directions carry a kernel: truncation ranks, and the redundancy that they show."""

from __future__ import annotations

import numpy as np


def truncation_rank(values: np.ndarray, share: float = 0.05) -> int:
    """The least r with λ₁ + … + λ_r ≥ (1 - share) Σ λ, of eigenvalues in descending order."""
    sums = np.cumsum(values)
    return int(np.searchsorted(sums, (1 - share) * sums[-1] * (1 - 1e-12))) + 1
