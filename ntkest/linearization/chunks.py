"""The chunk loop that adapters without a compiler of their own share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from .errors import InvalidTypeError, InvalidValueError, ShapeError
from .operators import AsOperator
from .protocol import Array, Blocks, Expand, Reduce, Tree

AHEAD = 2**17
"""Numbers in probes that are expanded together. Passes of one small probe each would wait for it as long again."""


def tree_map(function: Callable[..., Any], *trees: Tree) -> Tree:
    """Apply `function` to the arrays of (nested) tuples of the same structure."""
    if isinstance(trees[0], tuple):
        return tuple(tree_map(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def leading(tree: Tree) -> int:
    """The number of probes in a tree: the size of its common leading axis."""
    if isinstance(tree, tuple):
        if not tree:
            raise InvalidValueError("got no probe arrays")
        counts = [leading(part) for part in tree]
        if len(set(counts)) > 1:  # slices of chunks would drop the surplus without a word
            raise ShapeError(f"probe arrays have different numbers of probes: {counts}")
        return counts[0]
    if len(tree.shape) == 0:
        raise InvalidValueError("probes need a leading axis of probes, got a scalar")
    return int(tree.shape[0])


def checked_chunk(chunk: int | None, default: int, count: int) -> int:
    """The chunk to use for `count` probes: `chunk` if given, else the adapter's `default`."""
    if chunk is None:
        chunk = default
    elif isinstance(chunk, bool) or not isinstance(chunk, int):
        raise InvalidTypeError(f"chunk= takes a positive integer, not {chunk!r}")
    elif chunk < 1:
        raise InvalidValueError(f"chunk= takes a positive integer, not {chunk}")
    return max(1, min(chunk, count))


def map_chunks(
    xp: ModuleType,
    apply: Callable[[Any], Any],
    reduce: Reduce,
    probes: Tree,
    expand: Expand | None,
    chunk: int,
) -> Tree:
    """``reduce(apply(expand(part)))`` for parts of `chunk` probes, concatenated along the first axis."""
    results = [reduce(apply(part)) for part in _parts(probes, expand, chunk)]
    if len(results) == 1:
        return results[0]
    return tree_map(lambda *parts: xp.concat(parts, axis=0), *results)


def map_example_chunks(
    xp: ModuleType,
    pullback: Callable[[int, int], Callable[[Any], Tree]],
    reduce: Reduce,
    probes: Tree,
    expand: Expand | None,
    examples: int,
    sizes: tuple[int, int],
) -> Tree:
    """``map_example_vjp`` by a loop over slices of examples, and in it one over parts of the probes.

    ``pullback(start, stop)`` prepares n = stop - start examples; what it returns maps cotangents (c, M) to blocks
    (c, n, P_l), or pairs of factors (c, n, S, …). `sizes` holds the largest n and c that are pushed through together.
    """
    together, chunk = sizes

    def rows(blocks: Tree) -> Tree:
        c, n = _leaf(blocks).shape[:2]
        found = reduce(tree_map(lambda a: xp.reshape(a, (c * n, *a.shape[2:])), blocks))
        return tree_map(lambda a: xp.reshape(a, (c, n, *a.shape[1:])), found)

    results = []
    for start in range(0, examples, together):
        pull = pullback(start, min(start + together, examples))
        results.append(map_chunks(xp, pull, rows, probes, expand, chunk))
    if len(results) == 1:
        return results[0]
    return tree_map(lambda *parts: xp.concat(parts, axis=1), *results)


def _leaf(tree: Tree) -> Array:
    return _leaf(tree[0]) if isinstance(tree, tuple) else tree


def unfactored(xp: ModuleType, block: Array | tuple[Array, Array]) -> Array:
    """A block of images (…, P_l), multiplied out where it comes in factors (…, S, p) and (…, S, q)."""
    if not isinstance(block, tuple):
        return block
    left, right = block
    images = xp.matrix_transpose(left) @ right
    return xp.reshape(images, (*images.shape[:-2], -1))


def example_sizes(chunk: int | None, default: int, examples: int, count: int) -> tuple[int, int]:
    """How many of `examples` and of `count` probes to push through together, when `chunk` (or `default`) pairs may be.

    Examples first: a slice of them shares its forward among probes, but a short loop over slices is worth more.
    """
    pairs = checked_chunk(chunk, default, examples * count)
    together = min(examples, pairs)
    return together, max(1, min(count, pairs // together))


def checked_examples(examples: tuple[int, int] | None) -> tuple[int, int]:
    """`examples` = (axis, N), refused where they are not known.

    Raises
    ------
    InvalidValueError
    """
    if examples is None:
        raise InvalidValueError(
            "gradients of single examples need outputs with an axis of examples that do not interact, and none was "
            "found; name it with batch_axis= where J is made"
        )
    return examples


class ChunkLoop(AsOperator):
    """`map_jvp` and `map_vjp` by `map_chunks`, for linearizations that offer `jvp`, `vjp` and `chunk_size`."""

    xp: Any

    def jvp(self, tangents: Any) -> Any:
        """See `Linearization.jvp`."""
        raise NotImplementedError

    def vjp(self, cotangents: Any) -> Any:
        """See `Linearization.vjp`."""
        raise NotImplementedError

    def chunk_size(self, mode: str, count: int) -> int:
        """See `Linearization.chunk_size`."""
        raise NotImplementedError

    def map_jvp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_jvp`."""
        count = leading(probes)
        size = checked_chunk(chunk, self.chunk_size("jvp", count), count)
        return map_chunks(self.xp, self.jvp, reduce, probes, expand, size)

    def map_vjp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """See `Linearization.map_vjp`."""
        count = leading(probes)
        size = checked_chunk(chunk, self.chunk_size("vjp", count), count)
        return map_chunks(self.xp, self.vjp, reduce, probes, expand, size)


def _parts(probes: Tree, expand: Expand | None, chunk: int) -> Iterator[Any]:
    """Chunks of expanded probes; once the first chunk shows their size, small ones are expanded several at once."""
    count, start, together = leading(probes), 0, chunk
    while start < count:
        stop = min(start + together, count)
        group = _rows(probes, start, stop)
        ready = group if expand is None else expand(group)
        for first in range(0, stop - start, chunk):
            yield ready if together == chunk else _rows(ready, first, min(first + chunk, stop - start))
        if start == 0:
            together = chunk * max(1, AHEAD // max(1, _numbers(ready)))
        start = stop


def _rows(tree: Tree, start: int, stop: int) -> Tree:
    """Probes start … stop-1, where stop is not beyond the end: the Array API leaves that undefined."""
    return tree_map(lambda a: a[start:stop, ...], tree)


def _numbers(tree: Tree) -> int:
    return sum(map(_numbers, tree)) if isinstance(tree, tuple) else math.prod(tree.shape)


def identity(images: Tree) -> Tree:
    """The `reduce` that keeps the images."""
    return images


def as_probes(xp: ModuleType, shape: tuple[int, ...], array: Array, what: str) -> Array:
    """Check a (k, n) batch against `shape` (k free, n fixed) and say clearly what is wrong."""
    if len(array.shape) != 2 or array.shape[1] != shape[1]:
        raise InvalidValueError(f"{what} must have shape (k, {shape[1]}), got {tuple(array.shape)}")
    return array


def as_tangents(xp: ModuleType, params: Sequence[Array], names: Sequence[str], tangents: Blocks) -> Blocks:
    """Check blocks (k, P_l) against the parameters, and say clearly what is wrong."""
    if not isinstance(tangents, tuple | list) or len(tangents) != len(params):
        given = f"{len(tangents)}" if isinstance(tangents, tuple | list) else type(tangents).__name__
        raise ShapeError(f"tangents are a tuple of {len(params)} blocks, one a parameter; got {given}")
    blocks = tuple(
        as_probes(xp, (-1, math.prod(param.shape)), block, f"the tangent of {name!r}")
        for block, param, name in zip(tangents, params, names, strict=True)
    )
    if len({block.shape[0] for block in blocks}) > 1:
        raise ShapeError(f"tangent blocks have different numbers of probes: {[b.shape[0] for b in blocks]}")
    return blocks
