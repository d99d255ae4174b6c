"""`check_value_and_gradient`: gradients with respect to inputs, through the kernel of a linearization at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import ntk
from ..linearization import Array, Differentiator, Linearization, eps
from .cases import Case, cases
from .host import from_host, to_host
from .subject import ConformanceError, require


def check_value_and_gradient(
    backend: Differentiator, make: Callable[[Case, Array], Linearization], dtype: str = "float32", seed: int = 0
) -> None:
    """Check the optional `Differentiator` of an adapter.

    The scalar is a weighted sum of the entries of an exact kernel and of squared outputs, on the cases with examples
    along the first axis; its gradient is compared with central differences.

    Parameters
    ----------
    backend : object
        The adapter's, with ``value_and_gradient``.
    make : callable
        From a `Case` and inputs, an array of the framework or NumPy's ``case.inputs``, to a linearization there with
        ``differentiable=True``, ``check=False`` and ``batch_axis=0``.
    dtype : str
        "float32" or "float64".
    seed : int
        Of the cases and the weights.

    Raises
    ------
    ConformanceError
        An AssertionError that names the case and the broken law.
    """
    for case in cases(dtype, seed):
        if case.axis != 0:
            continue
        try:
            _check(backend, make, case, seed)
        except ConformanceError as error:
            raise ConformanceError(f"[{case.name}] {error}") from error
        except Exception as error:
            raise ConformanceError(
                f"[{case.name}] value_and_gradient: raised {type(error).__name__}: {error}"
            ) from error


def _check(backend: Differentiator, make: Callable[[Case, Array], Linearization], case: Case, seed: int) -> None:
    J = make(case, case.inputs)
    xp, like, draw = J.xp, J.outputs, np.random.default_rng(seed)
    count = case.inputs.shape[0]
    inputs, idle = (from_host(xp, values, like) for values in (case.inputs, draw.standard_normal(3)))
    weights = from_host(xp, draw.standard_normal((count, count)), like)

    def scalar(arrays: tuple[Array, ...], weights: Any) -> Array:
        J = make(case, arrays[0])
        return xp.sum(weights * ntk(J, outputs="trace")) + xp.sum(J.outputs * J.outputs)

    evaluated = backend.value_and_gradient(scalar)
    value, gradient = evaluated((inputs, idle), weights)
    require(
        isinstance(gradient, tuple) and [tuple(g.shape) for g in gradient] == [tuple(inputs.shape), (3,)],
        "value_and_gradient",
        "the gradient is a tuple of arrays shaped as the arrays of the first argument",
    )
    found = float(to_host(value))
    wanted = float(to_host(scalar((inputs, idle), weights)))
    epsilon = eps(xp, like)
    require(
        abs(found - wanted) <= 100 * epsilon * abs(wanted),
        "value_and_gradient",
        f"the value is {found:.6g}, where the function itself gives {wanted:.6g}",
    )
    require(
        not to_host(gradient[1]).any(), "value_and_gradient", "an array that does not matter has a gradient of zeros"
    )
    direction = draw.standard_normal(case.inputs.shape)
    step = epsilon ** (1 / 3)
    ends = [evaluated((from_host(xp, case.inputs + s * step * direction, like), idle), weights)[0] for s in (1, -1)]
    difference = float(to_host(ends[0]) - to_host(ends[1])) / (2 * step)
    slope = float(np.sum(to_host(gradient[0]) * direction))
    size = float(np.sum(np.abs(to_host(gradient[0]) * direction))) + abs(wanted)
    require(
        abs(slope - difference) <= 300 * epsilon ** (2 / 3) * size,
        "value_and_gradient",
        f"the gradient along a direction is {slope:.6g}, central differences give {difference:.6g}",
    )
