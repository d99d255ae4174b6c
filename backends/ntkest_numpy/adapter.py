"""`NumpyLinearization`: J of a function written with autograd.numpy, and the backend that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import array_api_compat.numpy as xp
import autograd.numpy as anp
import numpy as np

from ntkest.linearization import (
    Blocks,
    ChunkLoop,
    DeviceMismatchError,
    Expand,
    InvalidTypeError,
    InvalidValueError,
    Options,
    Reduce,
    ShapeError,
    Tree,
    UnsupportedModeError,
    as_probes,
    as_tangents,
    check_adjoint,
    check_dtypes,
    check_finite,
    check_repeatable,
    checked_examples,
    eps,
    example_sizes,
    find_examples,
    flatten,
    join,
    leading,
    map_example_chunks,
    pick,
    select,
)

from . import tracing, trees

_ADVICE = "a function must be a function: draw random numbers outside of it and hand them in as an input"
_CHUNK_NUMBERS = 2**20
"""Numbers in the images of one chunk: 8 MiB of float64, which is memory that the allocator uses again."""


class NumpyBackend:
    """Linearizes functions ``f(params, *inputs)`` that are written with ``autograd.numpy``."""

    name = "numpy"

    def linearize(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> NumpyLinearization:
        """See `ntkest.linearize`. Parameters and input arrays are copied, whatever ``copy=`` says.

        Raises
        ------
        NTKError
            InvalidTypeError without parameters; InvalidValueError for ``differentiable=True``, which autograd cannot
            offer because estimators compute with NumPy itself; and those of the checks.
        """
        if options.differentiable:
            raise InvalidValueError(
                "differentiable=True is not available for numpy: autograd does not see through the estimators; use "
                "the torch adapter (differentiable=True) or the jax adapter (always)"
            )
        if not args:
            raise InvalidTypeError("linearize(f, params, *inputs) needs the parameters; got the function alone")
        tree, leaves = trees.parameters(args[0])
        model = _Model(target, trees.copied(args[1:]), trees.copied(kwargs), options.output)
        names = select(tuple(leaves), options.params) if leaves else ()
        J = NumpyLinearization(model, tree, {name: leaves[name] for name in names}, options.check)
        epsilon = eps(xp, J.outputs, *J.params)
        if options.check:
            check_repeatable(xp, J.outputs, np.asarray(model(tree)), epsilon, _ADVICE)
        J.examples = find_examples(
            xp,
            lambda inputs: np.asarray(model(tree, inputs)),
            trees.arrays(model.inputs),
            J.outputs,
            options.batch_axis,
            epsilon,
            options.check,
        )
        if options.check:
            J.exponent = check_adjoint(J, epsilon)
        return J


class _Model:
    """The user's function with its inputs and `output=`, as a function of the parameter tree."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any):
        self.function, self.inputs, self.output = function, (args, kwargs), output

    def __call__(self, tree: Any, inputs: Sequence[np.ndarray] | None = None) -> Any:
        """One array (traced, if the parameters are), with other input arrays if given."""
        args, kwargs = self.inputs if inputs is None else trees.exchanged(self.inputs, iter(inputs))
        raw = tracing.plain(self.function(tree, *args, **kwargs))
        leaves = flatten(tracing.plain(pick(raw, self.output)))
        return join([(name, _array(leaf)) for name, leaf in leaves], lambda parts, axis: anp.concatenate(parts, axis))


class NumpyLinearization(ChunkLoop):
    """J of a function of NumPy arrays, by HIPS autograd.

    A value: it holds copies of parameters and inputs. (Arrays that the function reaches in another way, as
    globals or in a closure, are the function's own: J does not see when they change.)

    A VJP runs back over one trace, made when J is made; a JVP runs the function once in forward mode. Where an
    operation has no forward rule, a JVP is a double VJP, counted as two passes. Probes are looped over: autograd has no
    batching.
    """

    xp = xp

    def __init__(self, model: _Model, tree: Any, leaves: dict[str, np.ndarray], check: bool) -> None:
        self._model, self._tree, self._check = model, tree, check
        self.param_names = tuple(leaves)
        self.params = tuple(leaves.values())
        self.outputs = np.asarray(model(tree))
        check_dtypes(xp, self.params, self.param_names, self.outputs)
        if check:
            check_finite(xp, self.params, self.param_names, self.outputs)
        self.examples: tuple[int, int] | None = None
        self.exponent = 0
        self._lacking = ""
        self._pullback = tracing.reverse(self._function, self.params)

    def _function(self, blocks: tuple[Any, ...], inputs: Sequence[np.ndarray] | None = None) -> Any:
        return self._model(
            trees.replaced(self._tree, {name: blocks[index] for index, name in enumerate(self.param_names)}), inputs
        )

    @property
    def modes(self) -> frozenset[str]:
        """Both, unless an operation has neither a forward rule nor a VJP that can be differentiated."""
        return frozenset({"vjp"} if self._route is None else {"jvp", "vjp"})

    @property
    def passes_per_jvp(self) -> int:
        """1 in forward mode, 2 for the double VJP."""
        return 2 if self._route == "double" else 1

    @cached_property
    def _route(self) -> str | None:
        """How a JVP is made here: "forward", "double" or None; tried once, when it is first asked for."""
        zeros = tuple(np.zeros_like(p) for p in self.params)
        try:
            tracing.forward(self._function, self.params, zeros)
        except Exception as error:  # the function itself has run before: it is a rule that is missing or wrong
            self._lacking = tracing.explain(error)
        else:
            return "forward"
        try:
            self._double(zeros)
        except Exception as error:
            self._lacking += f"; and for a double VJP: {tracing.explain(error)}"
        else:
            return "double"
        return None

    @cached_property
    def _double(self) -> Callable[[Blocks], Any]:
        return tracing.double_reverse(self._function, self.params, self.outputs)

    def jvp(self, tangents: Blocks) -> np.ndarray:
        """Blocks (k, P_l) to (k, M), one probe after the other; k forward passes, or k double VJPs.

        Raises
        ------
        UnsupportedModeError
            If autograd has neither route, naming the operation that lacks a rule.
        """
        self._need_jvp()
        if isinstance(tangents, tuple | list):
            _require_numpy("tangents", *tangents)
        blocks = as_tangents(xp, self.params, self.param_names, tangents)
        blocks = tuple(b.astype(p.dtype, copy=False) for b, p in zip(blocks, self.params, strict=True))
        images = np.empty((blocks[0].shape[0], self.outputs.size), self.outputs.dtype)
        for index in range(images.shape[0]):
            v = tuple(
                t[index].reshape(p.shape).astype(p.dtype, copy=False)
                for t, p in zip(tangents, self.params, strict=True)
            )
            image = self._double(v) if self._route == "double" else tracing.forward(self._function, self.params, v)
            images[index] = np.broadcast_to(image, self.outputs.shape).reshape(-1)
        return images

    def vjp(self, cotangents: np.ndarray) -> Blocks:
        """(k, M) to blocks (k, P_l), one probe after the other; k reverse passes."""
        _require_numpy("cotangents", cotangents)
        cotangents = as_probes(xp, (-1, self.outputs.size), cotangents, "cotangents")
        cotangents = cotangents.astype(self.outputs.dtype, copy=False)
        count = cotangents.shape[0]
        images = tuple(np.empty((count, p.size), p.dtype) for p in self.params)
        for index in range(count):
            blocks = self._pullback(cotangents[index].reshape(self.outputs.shape))
            for image, block, param in zip(images, blocks, self.params, strict=True):
                image[index] = np.broadcast_to(block, param.shape).reshape(-1)
        return images

    @property
    def example_size(self) -> int:
        """See `ntkest.linearization.ExampleGradients`: P."""
        return sum(p.size for p in self.params)

    @property
    def map_example_vjp(self) -> Callable[..., Tree]:
        """See `ntkest.linearization.ExampleGradients`; there if the function can be called on one example."""
        if self.examples is not None and not self._separable:
            raise AttributeError("the function gives no outputs of one example alone")
        return self._map_examples

    @cached_property
    def _separable(self) -> bool:
        """Whether one example alone gives its share of the outputs; autograd would broadcast cotangents without a word.

        If not, its inputs are hidden from us, in a closure say.
        """
        return np.shape(self._model(self._tree, self._single(0))) == self._alone

    @property
    def _alone(self) -> tuple[int, ...]:
        """The shape of the outputs of one example."""
        axis, _ = checked_examples(self.examples)
        return tuple(1 if i == axis else n for i, n in enumerate(self.outputs.shape))

    def _single(self, n: int) -> list[np.ndarray]:
        """The inputs of one example: slices of those that have N entries along the axis."""
        axis, count = checked_examples(self.examples)
        inputs = trees.arrays(self._model.inputs)
        return [np.take(a, [n], axis) if a.ndim > axis and a.shape[axis] == count else a for a in inputs]

    def _map_examples(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """A trace of each example alone, and its VJPs one by one."""
        axis, count = checked_examples(self.examples)

        def pullback(start: int, stop: int) -> Callable[[np.ndarray], Blocks]:
            singles = [partial(self._function, inputs=self._single(n)) for n in range(start, stop)]
            pulls = [tracing.reverse(function, self.params) for function in singles]

            def pull(cotangents: np.ndarray) -> Blocks:
                _require_numpy("cotangents", cotangents)
                omega = as_probes(xp, (-1, self.outputs.size), cotangents, "cotangents")
                omega = omega.astype(self.outputs.dtype, copy=False).reshape(-1, *self.outputs.shape)
                images = tuple(np.empty((len(omega), len(pulls), p.size), p.dtype) for p in self.params)
                for i, n in np.ndindex(len(omega), len(pulls)):
                    blocks = pulls[n](np.take(omega[i], start + n, axis).reshape(self._alone))
                    for image, block, param in zip(images, blocks, self.params, strict=True):
                        image[i, n] = np.broadcast_to(block, param.shape).reshape(-1)
                return images

            return pull

        sizes = example_sizes(chunk, _CHUNK_NUMBERS // self.example_size, count, leading(probes))
        return map_example_chunks(xp, pullback, reduce, probes, expand, count, sizes)

    def chunk_size(self, mode: str, count: int) -> int:
        """Passes are looped over, so only the memory of the images counts."""
        image = self.outputs.size if mode == "jvp" else sum(p.size for p in self.params)
        return max(1, min(count, _CHUNK_NUMBERS // image))

    def at(self, params: Any) -> NumpyLinearization:
        """The same function, inputs and choice of parameters at another tree of the same names and shapes.

        Costs a forward pass and a trace. Whether examples interact, and the scale of images, are not looked at again.
        """
        tree, leaves = trees.parameters(params)
        missing = [name for name in self.param_names if name not in leaves]
        if missing:
            raise ShapeError(
                f"at() needs parameters of the same structure; {missing[0]!r} is missing or not floating point, "
                f"there are {', '.join(leaves) or 'none'}"
            )
        for name, old in zip(self.param_names, self.params, strict=True):
            if leaves[name].shape != old.shape:
                raise ShapeError(f"at() got {name!r} of shape {leaves[name].shape}; it was linearized with {old.shape}")
        J = NumpyLinearization(self._model, tree, {name: leaves[name] for name in self.param_names}, self._check)
        if J.outputs.shape != self.outputs.shape:
            raise ShapeError(f"at() changes the shape of the outputs from {self.outputs.shape} to {J.outputs.shape}")
        J.examples, J.exponent = self.examples, self.exponent
        return J

    def _need_jvp(self) -> None:
        if self._route is None:
            raise UnsupportedModeError(
                f"autograd has no forward mode for this function ({self._lacking}); define the rule with "
                "autograd.extend.defjvp, or use a method that needs VJPs only (method='reverse')"
            )


def _require_numpy(what: str, *probes: Any) -> None:
    for array in probes:
        if not isinstance(array, np.ndarray):
            given = f"{type(array).__module__}.{type(array).__name__}"
            raise DeviceMismatchError(f"{what} must be NumPy arrays, not {given}")


def _array(leaf: Any) -> Any:
    """Python numbers as arrays; anything else stays, for `join` to judge."""
    return np.asarray(leaf) if isinstance(leaf, float | int | complex) else leaf
