"""The O × O blocks of a full kernel."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError


def kernel_blocks(K: Array, outputs: int) -> Any:
    """A full kernel (N·O, N'·O) seen as blocks (N, N', O, O), one for each pair of examples.

    Parameters
    ----------
    K : array
        From ``ntk(J)``, or a part of it of whole blocks.
    outputs : int
        O, the number of outputs of an example.

    Returns
    -------
    array (N, N', O, O)
        A view, where the namespace has views; nothing is computed.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError
    """
    if isinstance(outputs, bool) or not isinstance(outputs, int):
        raise InvalidTypeError(f"outputs= takes the number of outputs of an example, not {outputs!r}")
    if outputs < 1:
        raise InvalidValueError(f"outputs= takes the number of outputs of an example, not {outputs}")
    shape = tuple(K.shape)
    if len(shape) != 2 or any(n % outputs for n in shape):
        raise ShapeError(f"a full kernel has the shape (N·O, N'·O), which with O = {outputs} {shape} has not")
    xp = array_namespace(K)
    blocks = xp.reshape(K, (shape[0] // outputs, outputs, shape[1] // outputs, outputs))
    return xp.permute_dims(blocks, (0, 2, 1, 3))
