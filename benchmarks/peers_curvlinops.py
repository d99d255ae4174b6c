"""curvlinops in the contest of estimators, with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import curvlinops
import torch
from curvlinops._torch_base import PyTorchLinearOperator  # its documentation tells users to derive from this class

from .contest import CannotRunError, Method, Run
from .operators import Operator

PACKAGES = ("curvlinops-for-pytorch", "torch", "numpy")


def methods() -> list[Method]:
    """Traces and a squared Frobenius norm; the number of products must divide by what each does in turn."""
    return [
        Method("hutchinson", ("trace",), _prepare(curvlinops.hutchinson_trace, 1)),
        Method("hutch++", ("trace",), _prepare(curvlinops.hutchpp_trace, 3)),
        Method("xtrace", ("trace",), _prepare(curvlinops.xtrace, 2)),
        Method("hutchinson", ("frobenius_norm",), _prepare(curvlinops.hutchinson_squared_fro, 1, root=True)),
    ]


def duplicated() -> list[Method]:
    """None: it draws its probes itself."""
    return []


class Counting(PyTorchLinearOperator):
    """K, counting the columns that it is multiplied by."""

    SELF_ADJOINT = True
    dtype = torch.float64
    device = torch.device("cpu")

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__([(matrix.shape[1],)], [(matrix.shape[0],)])
        self.matrix = matrix
        self.columns = 0

    def _matmat(self, X: list[torch.Tensor]) -> list[torch.Tensor]:
        self.columns += X[0].shape[-1]
        return [self.matrix @ X[0]]


def _prepare(estimate: Callable[..., Any], divisor: int, root: bool = False) -> Callable[[Operator, int], Run]:
    def prepare(operator: Operator, budget: int) -> Run:
        products = budget // 2 // divisor * divisor
        if products < 1:
            raise CannotRunError(f"a sample takes {2 * divisor} passes")
        K = Counting(torch.from_numpy(operator.kernel))

        def run(seed: int) -> tuple[tuple[float, ...], int]:
            torch.manual_seed(seed)
            K.columns = 0
            value = float(estimate(K, products))
            return (value**0.5 if root else value,), 2 * K.columns

        return run

    return prepare
