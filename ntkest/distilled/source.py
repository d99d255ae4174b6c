"""A model that can be linearized on other inputs than those it was given, a batch of them at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import array_api_compat

from ..batches import linearize_batches
from ..linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    ShapeError,
    flatten,
    is_linearization,
    linearize,
)

BATCH = 64
"""Examples that are linearized together, where nothing else is said: their activations are kept."""


@dataclass(frozen=True)
class Source:
    """A model without its inputs; or nothing but linearizations, where `target` is None."""

    target: Any
    """A module, or a function of parameters and inputs."""
    before: tuple[Any, ...]
    """What goes before the inputs: the parameters of a function, or nothing."""
    options: Mapping[str, Any]
    """Keywords of `ntkest.linearize`."""
    batch: int
    """Examples that are linearized together."""

    def linearize(self, inputs: Any) -> Linearization:
        """J on inputs (N, …), read in batches where they are many; a linearization is taken as it is.

        Raises
        ------
        InvalidTypeError, ShapeError
        """
        if is_linearization(inputs):
            J: Linearization = inputs
            return checked(J)
        count = count_of(inputs)
        if count <= self.batch:
            J = linearize(self.target, *self.before, inputs, **self.options)
        else:
            batches = [inputs[start : start + self.batch, ...] for start in range(0, count, self.batch)]
            J = linearize_batches(self.target, *self.before, batches, **self.options)
        self._check_parameters(J)
        return checked(J)

    def _check_parameters(self, J: Linearization) -> None:
        """A function's parameters come first; what a module takes before its last input would be taken for them."""
        leaves = [leaf for _, leaf in flatten(self.before[0])] if self.before else []
        if leaves and all(hasattr(leaf, "shape") for leaf in leaves):
            theirs = Counter(tuple(leaf.shape) for leaf in leaves)
            if Counter(tuple(p.shape) for p in J.params) - theirs:
                raise InvalidTypeError(
                    "a model is distilled on one array of inputs, distill(module, inputs) or distill(f, params, "
                    "inputs); this one takes several: wrap it in a function of one"
                )


def source_of(target: Any, args: tuple[Any, ...], options: Mapping[str, Any], batch: int) -> tuple[Source, Any]:
    """The model, and its inputs; a linearization stands for its own inputs, and then there is no model.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if isinstance(batch, bool) or not isinstance(batch, int):
        raise InvalidTypeError(f"batch= takes a number of examples, not {batch!r}")
    if batch < 1:
        raise InvalidValueError(f"batch= takes a positive number of examples, not {batch}")
    if is_linearization(target):
        if args:
            raise InvalidTypeError("a linearization has its inputs already; give distill it alone, or a model")
        return Source(None, (), {}, batch), target
    if not callable(target):
        raise InvalidTypeError(f"distill takes a module, a function or a linearization, not {type(target).__name__}")
    if len(args) not in (1, 2):
        raise InvalidTypeError(
            f"call distill(module, inputs) or distill(f, params, inputs); got {len(args)} arguments after the model"
        )
    return Source(target, tuple(args[:-1]), dict(options), batch), args[-1]


def count_of(inputs: Any) -> int:
    """How many examples an array of inputs has.

    Raises
    ------
    InvalidTypeError, ShapeError
    """
    if not array_api_compat.is_array_api_obj(inputs):
        raise InvalidTypeError(f"inputs are an array with one entry an example, not {type(inputs).__name__}")
    if not inputs.shape or not inputs.shape[0]:
        raise ShapeError(f"inputs have one entry an example along their first axis; got shape {tuple(inputs.shape)}")
    return int(inputs.shape[0])


def checked(J: Linearization) -> Linearization:
    """J, refused if its outputs do not run over independent examples first.

    Raises
    ------
    ShapeError
    """
    if J.examples is None or J.examples[0] != 0:
        raise ShapeError(
            f"the first axis of the outputs {tuple(J.outputs.shape)} is to run over examples that do not interact; see "
            "batch_axis= of ntkest.linearize"
        )
    return J


def logits_of(J: Linearization) -> Array:
    """Outputs (N, O)."""
    return J.xp.reshape(J.outputs, (J.outputs.shape[0], -1))


def parameters_of(J: Linearization) -> int:
    """P."""
    return sum(math.prod(p.shape) for p in J.params)
