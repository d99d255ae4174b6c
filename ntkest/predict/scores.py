"""Scores of an architecture from its kernel at initialisation, before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..kernels import ntk, pntk
from ..linearization import Linearization, accumulator, eps, number
from .leaveout import LeftOut
from .ridge import kernel_ridge


@dataclass(frozen=True)
class ArchitectureScore:
    """What the kernel of an untrained network says about it."""

    trace: float
    """tr K / (N·O), the mean squared gradient of an output: larger ones train faster."""
    condition_number: float
    """λ_max / λ_min of pNTK: larger ones train more unevenly. Infinite where λ_min is zero to rounding."""
    left_out: LeftOut | None
    """How kernel ridge regression does on examples left out; None without targets."""


def architecture_score(J: Linearization, targets: Any = None) -> ArchitectureScore:
    """Trace, condition number and leave-one-out accuracy of a network's kernel, to rank architectures by.

    Parameters
    ----------
    J : Linearization
        Of an untrained network, on a batch that is the same for all that are compared.
    targets : array of the shape of the outputs, or integer labels (N,), optional

    Returns
    -------
    ArchitectureScore
        O + 1 reverse passes and the eigenvalues of an N × N kernel.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, UnsupportedModeError

    References
    ----------
    Chen, Gong, Wang, "Neural architecture search on ImageNet in four GPU hours: a theoretically inspired perspective",
    ICLR 2021 (condition number); Shu, Cai, Dai, Ooi, Low, "NASI: label- and data-agnostic neural architecture search at
    initialization", ICLR 2022 (trace norm).
    """
    xp, K = J.xp, pntk(J)
    wide = xp.astype(K, accumulator(xp, K), copy=False)
    values = xp.linalg.eigvalsh(wide)
    least, largest = number(values[0]), number(values[-1])
    singular = least <= K.shape[0] * eps(xp, K) * largest
    trace = number(xp.linalg.trace(ntk(J, outputs="trace"))) / K.shape[0]
    left_out = None if targets is None else kernel_ridge(K, targets).left_out()
    return ArchitectureScore(trace, math.inf if singular else largest / least, left_out)
