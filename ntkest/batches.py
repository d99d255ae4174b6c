"""Many batches as one linearization, streamed: one batch's computation is alive at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import array_api_compat

from .linearization import (
    Array,
    Blocks,
    ChunkLoop,
    Expand,
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NotRepeatableError,
    Options,
    Reduce,
    ShapeError,
    StaleLinearizationError,
    TracedValueError,
    Tree,
    as_probes,
    as_tangents,
    checked_examples,
    eps,
    find_backend,
    identity,
    join_examples,
    leading,
    map_chunks,
    number,
    scalar_dtype,
    tree_map,
)


def linearize_batches(
    target: Any,
    *args: Any,
    inputs: Any = None,
    output: Any = None,
    params: Any = None,
    batch_axis: int | str | None = "auto",
    backend: str | None = None,
    check: bool = True,
    copy: bool = False,
    differentiable: bool = False,
    keep: bool = False,
) -> Linearization:
    """The Jacobian of a model on all batches of a data set, as if they had been one batch.

    Two forms, as for `linearize`: ``linearize_batches(module, batches)`` and ``linearize_batches(f, params, batches)``.
    `batches` is read again in every pass (and once here), and each batch is linearized anew then, so that only
    one is in memory; with ``keep=True`` all are kept, which is faster where they fit.

    Parameters
    ----------
    target : module or callable
        As for `linearize`.
    *args
        ``(batches,)`` for a module, ``(params, batches)`` for a function. `batches` is a list, a torch DataLoader, or
        anything that can be iterated more than once and gives the same batches in the same order each time.
    inputs : str, int or callable, optional
        What of a batch the model takes: a key, an index, or a function of the batch. What that gives, or the batch
        itself, becomes positional arguments if it is a tuple or list, keyword arguments if it is a mapping, and else
        the one argument. (``inputs=0`` for a loader of ``(x, y)``.)
    output, params, backend, check, differentiable
        As for `linearize`. Checks are made on the first batch, and that it comes first again.
    batch_axis : "auto", int or None
        Axis of the outputs along which batches are put together. "auto" takes the one along which the examples
        of the first batch were seen not to interact. None puts batches end to end along axis 0 (scalars become one
        axis) and does not ask whether examples interact within a batch.
    copy : bool
        As for `linearize`; implies `keep`.
    keep : bool
        Keep the linearization of every batch.

    Returns
    -------
    Linearization
        With outputs of all batches along the batch axis: M is the sum over batches. A JVP or VJP is one pass over all
        batches, and without `keep` one more forward (a linearization) of each, shared by the probes of a chunk.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        `batches` is a generator or an array, or is empty.
    InteractingExamplesError
        "auto" found no axis of independent examples in the first batch.
    NotRepeatableError
        Batches differ from those that came before (``shuffle=True``, random augmentation); also raised by later calls.
    StaleLinearizationError
        Raised by later calls if the parameters were changed in the meantime.
    """
    if not callable(target):
        raise InvalidTypeError(f"linearize_batches takes a module or a function, not {type(target).__name__}")
    if len(args) not in (1, 2):
        raise InvalidTypeError(
            "call linearize_batches(module, batches) or linearize_batches(f, params, batches); got "
            f"{len(args)} arguments after the model"
        )
    options = Options(output, params, batch_axis, check, copy, differentiable)
    return BatchedLinearization(
        _Stream(target, args[:-1], _reiterable(args[-1]), inputs, backend, options), keep or copy
    )


class _Stream(NamedTuple):
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

    def at(self, params: Any) -> _Stream:
        """The same stream at other parameters."""
        return self._replace(params=(params,)) if self.params else self._replace(moved=(params,))


class BatchedLinearization(ChunkLoop):
    """J of a model on a stream of batches; made by `linearize_batches`."""

    def __init__(self, stream: _Stream, keep: bool) -> None:
        self._stream, self._keep = stream, keep
        self._kept: list[Linearization] = []
        self._parts: list[Array] = []  # outputs of each batch
        for index, batch in enumerate(stream.batches):
            self._take(stream.linearize(batch, *self._how(index)), index)
        if not self._parts:
            raise InvalidValueError("there are no batches")
        self.outputs = self.xp.concat(self._parts, axis=self._join_axis)
        self.examples = None if self._axis is None else (self._axis, int(self.outputs.shape[self._axis]))
        if self.exponent:  # a VJP adds the images of B batches, whose signs agree at random
            self.exponent += round(math.log2(len(self._parts)) / 2)
        if not keep:
            self._theta = tuple(self.xp.asarray(p, copy=True) for p in self.params)
            if stream.options.check:
                next(self._images(lambda J, part: None))  # does the first batch come first again?

    def _how(self, index: int) -> tuple[int | str | None, bool]:
        """Batch axis and check of a batch: only the first is looked at closely."""
        options = self._stream.options
        return (options.batch_axis, options.check) if index == 0 else (self._axis, False)

    def _take(self, J: Linearization, index: int) -> None:
        """Note what is needed of the linearization of one batch."""
        if index == 0:
            self.xp, self.params, self.param_names = J.xp, J.params, J.param_names
            self.modes, self.passes_per_jvp, self.exponent = J.modes, J.passes_per_jvp, J.exponent
            self._epsilon = eps(J.xp, J.outputs, *J.params)
            self._axis = _axis(J, self._stream.options)
            self._by_example = getattr(J, "map_example_vjp", None) is not None
            self._has_uses = self._by_example and hasattr(J, "uses")
            self._join_axis = 0 if self._axis is None else self._axis
        part = J.outputs if len(J.outputs.shape) > 0 else self.xp.reshape(J.outputs, (1,))
        _check_shapes(part, self._parts, self._join_axis)
        self._parts.append(part)
        if self._keep:
            self._kept.append(J)

    def _images(
        self, apply: Callable[[Linearization, slice], Any], wanted: Callable[[slice], bool] | None = None
    ) -> Iterator[Any]:
        """``apply(J, part)`` for one batch after the other; `part` is its place along the batch axis.

        Each is looked at first: is it still the same batch, and the same model? And each is gone
        before the next is made. Those of places that are not `wanted` are read, and no more.
        """
        start = 0
        if self._keep:
            for J, before in zip(self._kept, self._parts, strict=True):
                part = slice(start, start + before.shape[self._join_axis])
                if wanted is None or wanted(part):
                    yield apply(J, part)
                start = part.stop
            return
        count = 0
        for count, batch in enumerate(self._stream.batches, 1):
            if count > len(self._parts):
                raise NotRepeatableError(f"there were {len(self._parts)} batches before, and now there are more")
            part = slice(start, start + self._parts[count - 1].shape[self._join_axis])
            start = part.stop
            if wanted is not None and not wanted(part):
                continue
            J = self._stream.linearize(batch, self._axis, check=False)
            self._check_same(J, count - 1)
            image = apply(J, part)
            del J
            yield image
        if count < len(self._parts):
            raise NotRepeatableError(f"there were {len(self._parts)} batches before, and now there are {count}")

    def _check_same(self, J: Linearization, index: int) -> None:
        advice = (
            "batches must be the same in every pass: use shuffle=False and no random augmentation, give a list, or "
            "keep=True"
        )
        before = self._parts[index]
        if math.prod(J.outputs.shape) != math.prod(before.shape):
            raise NotRepeatableError(
                f"the outputs of batch {index} had the shape {tuple(before.shape)} and now have "
                f"{tuple(J.outputs.shape)}; {advice}"
            )
        xp = self.xp
        try:
            for name, old, new in zip(self.param_names, self._theta, J.params, strict=True):
                if number(xp.sum(xp.astype(old != new, xp.int32))) != 0:
                    raise StaleLinearizationError(
                        f"parameter {name!r} was changed after linearize_batches; call it again, or use copy=True"
                    )
            scale = number(xp.max(xp.abs(before)))
            gap = number(xp.max(xp.abs(xp.reshape(J.outputs, tuple(before.shape)) - before)))
        except TracedValueError:  # nothing can be compared while a framework is tracing
            return
        if not gap <= math.sqrt(self._epsilon) * scale:
            raise NotRepeatableError(
                f"the outputs of batch {index} differ by {gap:.2g} from what they were (they reach {scale:.2g}); "
                f"{advice}"
            )

    def jvp(self, tangents: Blocks) -> Array:
        """Blocks (k, P_l) to (k, M): the images of all batches, put together along the batch axis."""
        tangents = as_tangents(self.xp, self.params, self.param_names, tangents)
        count = tangents[0].shape[0]
        shape = (count, *self.outputs.shape)

        def image(J: Linearization, part: slice) -> Array:
            length = part.stop - part.start
            return self.xp.reshape(J.jvp(tangents), _with(shape, self._join_axis + 1, length))

        whole = self.xp.concat(list(self._images(image)), axis=self._join_axis + 1)
        return self.xp.reshape(whole, (count, -1))

    def vjp(self, cotangents: Array) -> Blocks:
        """(k, M) to blocks (k, P_l): the sum over batches, added in at least float32."""
        cotangents = as_probes(self.xp, (-1, math.prod(self.outputs.shape)), cotangents, "cotangents")
        count = cotangents.shape[0]
        whole = self.xp.reshape(cotangents, (count, *self.outputs.shape))

        def image(J: Linearization, part: slice) -> list[Array]:
            own = whole[(slice(None),) * (self._join_axis + 1) + (part, ...)]
            blocks = J.vjp(self.xp.reshape(own, (count, -1)))
            return [self.xp.astype(b, scalar_dtype(self.xp, b), copy=False) for b in blocks]

        sums: list[Array] = []
        for blocks in self._images(image):
            sums = [a + b for a, b in zip(sums, blocks, strict=True)] if sums else blocks
        return tuple(self.xp.astype(a, p.dtype, copy=False) for a, p in zip(sums, self.params, strict=True))

    @property
    def example_size(self) -> int:
        """See `ExampleGradients`: P, which no batch exceeds."""
        return sum(math.prod(p.shape) for p in self.params)

    @property
    def map_example_vjp(self) -> Callable[..., Tree]:
        """See `ExampleGradients`; there if the linearization of a batch has it."""
        if not self._by_example:
            raise AttributeError("the linearizations of the batches have no map_example_vjp")
        return self._map_example_vjp

    def _map_example_vjp(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """Batch after batch, for as many probes as `chunk_size` allows cotangents of."""
        axis, xp = checked_examples(self.examples)[0] + 1, self.xp

        def apply(cotangents: Array) -> Tree:
            cotangents = as_probes(xp, (-1, math.prod(self.outputs.shape)), cotangents, "cotangents")
            count = cotangents.shape[0]
            whole = xp.reshape(cotangents, (count, *self.outputs.shape))

            def image(J: Any, part: slice) -> Tree:
                own = xp.reshape(whole[(slice(None),) * axis + (part, ...)], (count, -1))
                return J.map_example_vjp(reduce, own, chunk=chunk)

            return tree_map(lambda *parts: xp.concat(parts, axis=1), *self._images(image))

        count = leading(probes)
        return map_chunks(xp, apply, identity, probes, expand, self.chunk_size("jvp", count))

    @property
    def sweep_uses(self) -> Callable[[Array, Sequence[tuple[int, int]]], Iterator[tuple[Any, ...]]]:
        """`Uses.uses` of ascending ranges, for one reading of the batches; there if the batches have it."""
        if not self._has_uses:
            raise AttributeError("the linearizations of the batches have no uses")
        return self._sweep_uses

    def _sweep_uses(self, cotangents: Array, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[Any, ...]]:
        axis, xp = checked_examples(self.examples)[0] + 1, self.xp
        cotangents = as_probes(xp, (-1, math.prod(self.outputs.shape)), cotangents, "cotangents")
        whole = xp.reshape(cotangents, (cotangents.shape[0], *self.outputs.shape))

        def pieces(J: Any, part: slice) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
            own = xp.reshape(whole[(slice(None),) * axis + (part, ...)], (whole.shape[0], -1))
            for start, stop in ranges:
                first, last = max(start, part.start), min(stop, part.stop)
                if first < last:
                    yield last, stop, J.uses(own, first - part.start, last - part.start)

        def wanted(part: slice) -> bool:
            return any(start < part.stop and part.start < stop for start, stop in ranges)

        begun: list[tuple[Any, ...]] = []
        for found in self._images(pieces, wanted):
            for last, stop, blocks in found:
                begun.append(blocks)
                if last == stop:
                    yield tuple(join_examples(xp, parts) for parts in zip(*begun, strict=True))
                    begun = []
            if last == ranges[-1][1]:
                return

    def chunk_size(self, mode: str, count: int) -> int:
        """As many probes as have images of 2**24 numbers together, for fewer passes over the batches."""
        image = math.prod(self.outputs.shape) if mode == "jvp" else sum(math.prod(p.shape) for p in self.params)
        return max(1, min(count, int(2**24 // image)))

    def at(self, params: Any) -> BatchedLinearization:
        """The same model and batches at other parameters, given as to `linearize`."""
        return BatchedLinearization(self._stream.at(params), self._keep)


def _reiterable(batches: Any) -> Iterable[Any]:
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


def _axis(first: Linearization, options: Options) -> int | None:
    """The axis of the outputs along which batches are put together."""
    if options.batch_axis is None:
        return None
    if first.examples is None:
        raise InteractingExamplesError(
            f"no axis of the outputs {tuple(first.outputs.shape)} of the first batch is seen to run over examples that "
            "do not interact (batches of one example and check=False show nothing); give batch_axis=, or "
            "batch_axis=None to put batches end to end whatever happens within them"
        )
    return first.examples[0]


def _with(shape: tuple[int, ...], axis: int, length: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _check_shapes(outputs: Array, before: Sequence[Array], axis: int) -> None:
    shape = tuple(outputs.shape)
    expected = tuple(before[0].shape) if before else shape
    if len(shape) != len(expected) or any(i != axis and n != shape[i] for i, n in enumerate(expected)):
        raise ShapeError(
            f"outputs of different batches must agree in all axes but axis {axis}: one has {shape}, the first "
            f"{expected}; pad them, or pick a part with output="
        )
