"""An explicit Jacobian as a linearization: an array of any Array API namespace, or a SciPy LinearOperator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import array_api_compat

from .linearization import (
    Array,
    Blocks,
    ChunkLoop,
    DeviceMismatchError,
    Expand,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonDifferentiableError,
    NonFiniteError,
    Reduce,
    ShapeError,
    Tree,
    as_probes,
    as_tangents,
    check_adjoint,
    checked_examples,
    eps,
    example_sizes,
    is_concrete,
    leading,
    map_example_chunks,
    number,
)


def from_jacobian(A: Any, output_shape: tuple[int, ...] | None = None) -> Linearization:
    """A linearization whose Jacobian is given.

    Parameters
    ----------
    A : array (M, P), SciPy LinearOperator, or mapping of name to array (M, P_l)
        The Jacobian. An array of any Array API namespace stays there; a mapping gives parameter blocks.
    output_shape : tuple of int, optional
        Shape of the outputs, of size M; default (M,). With more than one axis the first counts as examples.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonDifferentiableError, NonFiniteError
        If A is no real floating-point matrix, or its blocks do not fit together.
    InconsistentDerivativesError
        If the `rmatvec` of a LinearOperator is not the adjoint of its `matvec`.

    Notes
    -----
    One JVP or VJP is a product with A or its transpose. `outputs` and `params` are zeros: the primal is not known.
    A is not copied, so do not write into it afterwards. A LinearOperator without `rmatvec` has the mode "jvp" only.
    """
    if not isinstance(A, Mapping) and hasattr(A, "rmatmat") and hasattr(A, "matmat"):
        return OperatorLinearization(A, output_shape)
    blocks = dict(A) if isinstance(A, Mapping) else {"jacobian": A}
    if not blocks:
        raise InvalidValueError("from_jacobian got an empty mapping; give at least one block (M, P_l)")
    for name, block in blocks.items():
        if not array_api_compat.is_array_api_obj(block):
            raise InvalidTypeError(
                f"from_jacobian takes arrays or a LinearOperator, not {type(block).__name__} ({name!r})"
            )
        if len(block.shape) != 2 or 0 in block.shape:
            raise ShapeError(f"a Jacobian has shape (M, P) with M, P > 0; {name!r} has {tuple(block.shape)}")
    try:
        xp = array_api_compat.array_namespace(*blocks.values())
    except TypeError as error:
        raise InvalidTypeError(f"the blocks of a Jacobian must share one array namespace: {error}") from error
    return DenseLinearization(xp, blocks, output_shape)


class DenseLinearization(ChunkLoop):
    """J given as arrays, one (M, P_l) a block."""

    modes = frozenset({"jvp", "vjp"})
    passes_per_jvp = 1

    def __init__(self, xp: ModuleType, blocks: Mapping[str, Array], output_shape: tuple[int, ...] | None) -> None:
        first = next(iter(blocks.values()))
        rows = first.shape[0]
        for name, block in blocks.items():
            if block.shape[0] != rows:
                raise ShapeError(f"all blocks need the same number of rows; {name!r} has {block.shape[0]}, not {rows}")
            if not xp.isdtype(block.dtype, "real floating"):
                raise NonDifferentiableError(f"a Jacobian must be real floating point; {name!r} is {block.dtype}")
            if array_api_compat.device(block) != array_api_compat.device(first):
                raise DeviceMismatchError(
                    f"all blocks need one device; {name!r} is on {array_api_compat.device(block)}, the first on "
                    f"{array_api_compat.device(first)}"
                )
        shape = _output_shape(output_shape, rows)
        self.xp = xp
        self.param_names = tuple(blocks)
        self._blocks = tuple(blocks.values())
        device = array_api_compat.device(first)
        self.outputs = xp.zeros(shape, dtype=xp.result_type(*self._blocks), device=device)
        self.params = tuple(xp.zeros((b.shape[1],), dtype=b.dtype, device=device) for b in self._blocks)
        self.examples = (0, shape[0]) if len(shape) > 1 else None
        peaks = [xp.max(xp.abs(b)) for b in self._blocks]
        self.exponent = 0
        if all(is_concrete(p) for p in peaks):
            self.exponent = _exponent(max(number(p) for p in peaks), min(rows, max(b.shape[1] for b in self._blocks)))

    def jvp(self, tangents: Blocks) -> Array:
        """Sum over blocks of v_l A_lᵀ, (k, M)."""
        tangents = as_tangents(self.xp, self.params, self.param_names, tangents)
        dtype, total = self.outputs.dtype, None
        for v, block in zip(tangents, self._blocks, strict=True):
            product = self.xp.astype((block @ v.T).T, dtype, copy=False)  # OpenBLAS: 1.3 times as fast as v @ block.T
            total = product if total is None else total + product
        return total

    def vjp(self, cotangents: Array) -> Blocks:
        """ω A_l for each block, (k, P_l)."""
        cotangents = self._cotangents(cotangents)
        return tuple((block.T @ self.xp.astype(cotangents, block.dtype, copy=False).T).T for block in self._blocks)

    @property
    def example_size(self) -> int:
        """See `ExampleGradients`: P."""
        return sum(math.prod(p.shape) for p in self.params)

    def map_example_vjp(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """See `ExampleGradients`: products with the rows of each example, which are those of one index of axis 0."""
        count = checked_examples(self.examples)[1]
        sizes = example_sizes(chunk, int(2**24 // self.example_size), count, leading(probes))
        return map_example_chunks(self.xp, self._pull_examples, reduce, probes, expand, count, sizes)

    def uses(self, cotangents: Array, start: int, stop: int) -> Blocks:
        """See `ntkest.linearization.Uses`: products with the rows of these examples."""
        return self._pull_examples(start, stop)(cotangents)

    def _pull_examples(self, start: int, stop: int) -> Callable[[Array], Blocks]:
        """Cotangents (c, M) to blocks (c, n, P_l) of the examples start … stop-1."""
        xp, (_, count) = self.xp, checked_examples(self.examples)
        each = math.prod(self.outputs.shape) // count
        blocks = [xp.reshape(b[start * each : stop * each, :], (stop - start, each, -1)) for b in self._blocks]

        def pull(cotangents: Array) -> Blocks:
            omega = xp.reshape(self._cotangents(cotangents), (-1, count, each))[:, start:stop, :]
            omega = xp.permute_dims(omega, (1, 0, 2))  # (n, c, D)
            images = (xp.astype(omega, b.dtype, copy=False) @ b for b in blocks)
            return tuple(xp.permute_dims(image, (1, 0, 2)) for image in images)

        return pull

    def chunk_size(self, mode: str, count: int) -> int:
        """As many probes as make up 2**24 numbers of the larger side, at least 16."""
        widest = max(math.prod(self.outputs.shape), sum(math.prod(p.shape) for p in self.params))
        return max(1, min(count, max(16, int(2**24 // widest))))

    def at(self, params: Any) -> DenseLinearization:
        """An explicit Jacobian is the same at all parameters."""
        return self

    def _cotangents(self, cotangents: Array) -> Array:
        return as_probes(self.xp, (-1, math.prod(self.outputs.shape)), cotangents, "cotangents")


class OperatorLinearization(DenseLinearization):
    """J given as a SciPy LinearOperator, on NumPy arrays."""

    map_example_vjp: Any = None  # an operator's product cannot leave out the sum over rows
    uses: Any = None

    def __init__(self, operator: Any, output_shape: tuple[int, ...] | None) -> None:
        import array_api_compat.numpy

        xp: ModuleType = array_api_compat.numpy
        rows, columns = operator.shape
        dtype = xp.dtype(operator.dtype if operator.dtype is not None else xp.float64)
        if not xp.isdtype(dtype, "real floating"):
            raise NonDifferentiableError(f"a Jacobian must be real floating point; the operator is {dtype}")
        if rows == 0 or columns == 0:
            raise ShapeError(f"a Jacobian has shape (M, P) with M, P > 0; the operator has {(rows, columns)}")
        shape = _output_shape(output_shape, rows)
        self.xp = xp
        self.param_names = ("jacobian",)
        self._operator = operator
        self.outputs = xp.zeros(shape, dtype=dtype)
        self.params = (xp.zeros((columns,), dtype=dtype),)
        self.examples = (0, shape[0]) if len(shape) > 1 else None
        try:
            operator.rmatvec(xp.zeros((rows,), dtype=dtype))
        except NotImplementedError:  # SciPy's word for an operator without an adjoint
            self.modes = frozenset({"jvp"})
        self.exponent = check_adjoint(self, eps(xp, self.outputs))

    def jvp(self, tangents: Blocks) -> Array:
        """(A vᵀ)ᵀ by ``matmat``."""
        (v,) = as_tangents(self.xp, self.params, self.param_names, tangents)
        return self.xp.asarray(self._operator.matmat(v.T).T, dtype=self.outputs.dtype)

    def vjp(self, cotangents: Array) -> Blocks:
        """(Aᵀ ωᵀ)ᵀ by ``rmatmat``."""
        omega = self._cotangents(cotangents)
        return (self.xp.asarray(self._operator.rmatmat(omega.T).T, dtype=self.outputs.dtype),)


def _output_shape(shape: tuple[int, ...] | None, rows: int) -> tuple[int, ...]:
    if shape is None:
        return (rows,)
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InvalidValueError(f"output_shape= takes a tuple of positive integers, not {shape!r}")
    shape = tuple(shape)
    if math.prod(shape) != rows:
        raise ShapeError(f"output_shape={shape} has {math.prod(shape)} entries, but the Jacobian has {rows} rows")
    return shape


def _exponent(peak: float, terms: int) -> int:
    """Exponent of a typical entry of an image whose sum has `terms` entries of size at most `peak`."""
    if not math.isfinite(peak):
        raise NonFiniteError("the Jacobian holds NaN or infinity")
    return math.frexp(peak * math.sqrt(terms))[1] if peak > 0 else 0
