"""The autodiff protocol, and everything that an adapter may use: adapters import this module and nothing else."""

from .checks import adjoint_probes, check_adjoint, check_dtypes, check_finite, check_repeatable
from .chunks import as_probes, checked_chunk, identity, leading, map_chunks, tree_map
from .discovery import GROUP, find_backend, linearize
from .errors import (
    DeviceMismatchError,
    InconsistentDerivativesError,
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    MissingBackendError,
    NonDifferentiableError,
    NonFiniteError,
    NotRepeatableError,
    NTKError,
    ShapeError,
    StaleLinearizationError,
    TracedValueError,
    UnsupportedModeError,
    ZeroKernelError,
)
from .examples import find_examples
from .outputs import flatten, join, pick
from .precision import accumulator, eps, is_concrete, number, scalar_dtype, tolerance
from .protocol import Array, Backend, Blocks, Expand, Linearization, Options, Reduce, Tree
from .selection import select

__all__ = [
    "GROUP",
    "Array",
    "Backend",
    "Blocks",
    "DeviceMismatchError",
    "Expand",
    "InconsistentDerivativesError",
    "InteractingExamplesError",
    "InvalidTypeError",
    "InvalidValueError",
    "Linearization",
    "MissingBackendError",
    "NTKError",
    "NonDifferentiableError",
    "NonFiniteError",
    "NotRepeatableError",
    "Options",
    "Reduce",
    "ShapeError",
    "StaleLinearizationError",
    "TracedValueError",
    "Tree",
    "UnsupportedModeError",
    "ZeroKernelError",
    "accumulator",
    "adjoint_probes",
    "as_probes",
    "check_adjoint",
    "check_dtypes",
    "check_finite",
    "check_repeatable",
    "checked_chunk",
    "eps",
    "find_backend",
    "find_examples",
    "flatten",
    "identity",
    "is_concrete",
    "join",
    "leading",
    "linearize",
    "map_chunks",
    "number",
    "pick",
    "scalar_dtype",
    "select",
    "tolerance",
    "tree_map",
]
