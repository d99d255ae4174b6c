"""A model and the batches that it is linearized on, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import array_api_compat

from ..linearization import InvalidTypeError, InvalidValueError, Linearization, Options, find_backend


class Stream(NamedTuple):
    """The model and its batches."""

    target: Any
    params: tuple[Any, ...]
    """The parameters of a function, or () for a module."""
    batches: Iterable[Any]
    inputs: Any
    backend: str | None
    options: Options
    moved: tuple[Any, ...] = ()
    """The parameters at which a module is linearized in place of its own, or ()."""

    def linearize(self, batch: Any, batch_axis: int | str | None, check: bool) -> Linearization:
        """J on one batch."""
        args, kwargs = _arguments(batch, self.inputs)
        old = self.options
        options = Options(old.output, old.params, batch_axis, check, old.copy, old.differentiable)
        args = (*self.params, *args)
        J = find_backend(self.target, args, self.backend).linearize(self.target, args, kwargs, options)
        return J.at(*self.moved) if self.moved else J

    def at(self, params: Any) -> Stream:
        """The same stream at other parameters."""
        return self._replace(params=(params,)) if self.params else self._replace(moved=(params,))


def reiterable(batches: Any) -> Iterable[Any]:
    """What can be read more than once.

    Raises
    ------
    InvalidTypeError
        It can not, or is a single batch.
    """
    if array_api_compat.is_array_api_obj(batches) or isinstance(batches, Mapping | str | bytes):
        raise InvalidTypeError(
            f"batches must be an iterable of batches, not {type(batches).__name__}; for a single batch use linearize, "
            "or put it into a list"
        )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise InvalidTypeError(f"batches must be an iterable of batches, not {type(batches).__name__}")
    if hasattr(batches, "__next__"):  # asked without iter(), which starts the workers of a loader
        raise InvalidTypeError(
            f"batches is a {type(batches).__name__}, which can be read only once, but every pass reads the batches "
            "again; give a list of them, a DataLoader, or an object whose __iter__ starts anew"
        )
    return batches  # type: ignore[no-any-return]


def _arguments(batch: Any, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the model."""
    if callable(inputs):
        batch = inputs(batch)
    elif inputs is not None:
        try:
            batch = batch[inputs]
        except (KeyError, IndexError, TypeError) as error:
            has = f" with {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else ""
            raise InvalidValueError(
                f"inputs={inputs!r} picks nothing from a batch, which is a {type(batch).__name__}{has}"
            ) from error
    if isinstance(batch, Mapping):
        return (), {str(key): value for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(batch), {}
    return (batch,), {}
