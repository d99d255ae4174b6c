"""Prediction with tangent kernels: ridge regression, Gaussian processes, linearised training, and what they tell.

`systems` brings a kernel and targets into one form, `factors` factorises, and `leaveout` leaves examples out; on these
stand `ridge` and `flow`. `pivoted` and `nystrom` do with some of the kernel's columns, and `gradients` and `linearized`
with none. Kernels are those of `ntkest.ntk` and `ntkest.pntk`, but any others would do.
"""

from .active import select_batch
from .flow import GradientFlow, gradient_flow
from .gradients import Solution, conjugate_gradients
from .leaveout import LeftOut
from .linearized import LinearizedRidge, linearized_ridge
from .nystrom import NystromRidge, nystrom_ridge
from .pivoted import PivotedCholesky, pivoted_cholesky
from .ridge import KernelRidge, kernel_ridge
from .scores import ArchitectureScore, architecture_score

__all__ = [
    "ArchitectureScore",
    "GradientFlow",
    "KernelRidge",
    "LeftOut",
    "LinearizedRidge",
    "NystromRidge",
    "PivotedCholesky",
    "Solution",
    "architecture_score",
    "conjugate_gradients",
    "gradient_flow",
    "kernel_ridge",
    "linearized_ridge",
    "nystrom_ridge",
    "pivoted_cholesky",
    "select_batch",
]
