"""skerch in the contest of estimators, with the noise that it advises: Rademacher for traces, Gaussian for norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from skerch import a_posteriori, algorithms
from skerch.linops import BaseLinOp

from .contest import CannotRunError, Method, Run
from .operators import Operator

PACKAGES = ("skerch", "torch", "numpy")

APART = 1_000_003
"""Between seeds: a run uses a range of them, which must not overlap."""


class Counting(BaseLinOp):
    """K, counting the rows and columns that it is multiplied by."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__(tuple(matrix.shape))
        self.matrix = matrix
        self.columns = 0

    def matmul(self, x: torch.Tensor) -> torch.Tensor:
        """K x."""
        self.columns += x.shape[1]
        return self.matrix @ x

    def rmatmul(self, x: torch.Tensor) -> torch.Tensor:
        """x K."""
        self.columns += x.shape[0]
        return x @ self.matrix


def methods() -> list[Method]:
    """Traces by (x)hutch(pp), norms by sketch and by the measurements of its error estimate."""
    return [
        Method("hutch", ("trace",), _prepare(_hutch, 1)),
        Method("hutch++", ("trace",), _prepare(_hutchpp, 3)),
        Method("xhutchpp (x)", ("trace",), _prepare(_xhutchpp, 2)),
        Method("xhutchpp (x, gh)", ("trace",), _prepare(_mixed, 3)),
        Method("snorm", ("frobenius_norm",), _prepare(_snorm, 2)),
        Method("apost_error", ("frobenius_norm",), _prepare(_apost, 1)),
    ]


def duplicated() -> list[Method]:
    """None: it draws its probes from seeds."""
    return []


def _prepare(estimate: Callable[[Counting, int, int], Any], products: int) -> Callable[[Operator, int], Run]:
    def prepare(operator: Operator, budget: int) -> Run:
        samples = budget // (2 * products)
        if samples < 1:
            raise CannotRunError(f"a sample takes {2 * products} passes")
        K = Counting(torch.from_numpy(operator.kernel))

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            K.columns = 0
            return (float(estimate(K, samples, (seed + 1) * APART)),), 2 * K.columns

        return run

    return prepare


def _where(K: Counting) -> dict[str, Any]:
    return {"lop_device": K.matrix.device, "lop_dtype": K.matrix.dtype}


def _hutch(K: Counting, samples: int, seed: int) -> Any:
    return algorithms.hutch(K, num_meas=samples, seed=seed, return_diag=False, **_where(K))["tr"]


def _hutchpp(K: Counting, samples: int, seed: int) -> Any:
    """`hutch` with a deflating basis from other noise, as its documentation says, and the trace on that basis."""
    noise = algorithms.SketchedAlgorithmDispatcher.mop(
        "rademacher", (K.shape[1], samples), seed, K.matrix.dtype, samples
    )
    Q = torch.linalg.qr(K @ noise.to_matrix(K.matrix.dtype, K.matrix.device))[0]
    rest = algorithms.hutch(K, num_meas=samples, seed=seed + samples, return_diag=False, defl_Q=Q, **_where(K))
    return (Q * (K @ Q)).sum() + rest["tr"]


def _xhutchpp(K: Counting, samples: int, seed: int) -> Any:
    return algorithms.xhutchpp(K, x_dims=samples, seed=seed, return_diag=False, **_where(K))["tr"]


def _mixed(K: Counting, samples: int, seed: int) -> Any:
    return algorithms.xhutchpp(K, x_dims=samples, gh_meas=samples, seed=seed, return_diag=False, **_where(K))["tr"]


def _snorm(K: Counting, samples: int, seed: int) -> Any:
    return algorithms.snorm(K, num_meas=samples, seed=seed, norm_types=("fro",), **_where(K))[0]["fro"]


def _apost(K: Counting, samples: int, seed: int) -> Any:
    """The norm from its a-posteriori test against the zero operator."""
    zero = torch.zeros((1, 1), dtype=K.matrix.dtype).expand(K.shape)
    first, _ = a_posteriori.apost_error(K, zero, K.matrix.device, K.matrix.dtype, num_meas=samples, seed=seed)
    return first[0] ** 0.5
