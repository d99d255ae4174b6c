"""Random projections of the gradients of a model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import is_writeable_array

from ..kernels.images import outputs_each
from ..linearization import Array, device
from ..memory import byte_count
from ..progress import progress_of
from .finite import check_features
from .kinds import random_matrix
from .planning import Route, routed


def project(
    J: Any,
    dim: int,
    kind: str = "rademacher",
    seed: int = 0,
    *,
    memory: int | str = "1GB",
    progress: Any = None,
) -> Any:
    """Random features of the gradients of each output of each example, g = Qᵀφ/√dim with φ_no = ∇_θ f_o(x_n).

    Inner products of features are those of gradients, the entries of the full kernel, without bias and with errors
    of about ‖φ‖ ‖φ'‖ / √dim. Q is drawn again in tiles wherever one is needed and never stored; its numbers depend on
    the seed alone.

    Parameters
    ----------
    J : Linearization
        With examples that do not interact; see ``batch_axis=`` of `ntkest.linearize`. From `linearize_batches` it is
        read batch by batch.
    dim : int
        The number of features, at most the number of parameters.
    kind : "rademacher", "gaussian" or "sjlt"
        What Q holds: random signs, normal numbers, or a few signs a row and else zeros, which is much the cheapest with
        gradients that do not come in factors.
    seed : int
    memory : int or str
        Bytes for gradients and products, beside the model and the features themselves. Features do not depend on it but
        for rounding.
    progress : bool or callable
        True for a line on standard error, or a function of what is done and what there is in all, in examples or, with
        forward mode, columns of Q.

    Returns
    -------
    array (N, O, dim)
        In the namespace, on the device and in the dtype of the outputs, or in float32 if that is shorter.

        Costs O reverse passes and the products with Q, in factors where that is cheaper; or dim forward passes, where
        there is no reverse mode or that is cheaper still.

    Raises
    ------
    InvalidTypeError, InvalidValueError, UnsupportedModeError
    NonFiniteError
        Features of some examples, which it names, are NaN or infinite.

    References
    ----------
    Achlioptas, "Database-friendly random projections", J. Comput. Syst. Sci. 2003 (signs); Kane and Nelson, "Sparser
    Johnson-Lindenstrauss transforms", J. ACM 2014.
    """
    budget = byte_count(memory)
    outputs_each(J)
    matrix = random_matrix(dim, kind, seed, sum(math.prod(param.shape) for param in J.params))
    route = routed(J, matrix, budget)
    return assembled(route, progress_of(progress, "columns" if route.axis else "examples"))


def assembled(route: Route, report: Callable[[int, int], None]) -> Array:
    """All features in memory, in place where arrays can be written to."""
    xp, ranges = route.project.xp, route.ranges()
    pieces: list[Array] = []
    whole: Any = None
    for (start, stop), piece in zip(ranges, route.source.features(route.project, ranges), strict=True):
        check_features(xp, piece, 0 if route.axis else start)
        if len(ranges) == 1:
            whole = piece
        elif is_writeable_array(piece):
            if whole is None:
                whole = xp.empty(route.shape, dtype=piece.dtype, device=device(piece))
            whole[(slice(None),) * route.axis + (slice(start, stop), ...)] = piece
        else:
            pieces.append(piece)
        report(stop, route.shape[route.axis])
    return xp.concat(pieces, axis=route.axis) if pieces else whole
