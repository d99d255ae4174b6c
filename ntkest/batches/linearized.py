"""The Jacobian of a model on a stream of batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..linearization import (
    Array,
    Blocks,
    ChunkLoop,
    Expand,
    InteractingExamplesError,
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
    identity,
    join_examples,
    leading,
    map_chunks,
    number,
    scalar_dtype,
    tree_map,
)
from .stream import Stream


class BatchedLinearization(ChunkLoop):
    """J of a model on a stream of batches; made by `linearize_batches`."""

    def __init__(self, stream: Stream, keep: bool) -> None:
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
            if hasattr(J, "fast_products"):
                self.fast_products = J.fast_products
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
                    yield join_examples(xp, begun)
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
