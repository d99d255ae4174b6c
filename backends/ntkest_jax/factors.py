"""Which gradients of parameters are handed out in factors, and where these are found in a linear jaxpr.

A gradient that is a sum of products of matrices, Σ_i A_iᵀ B_i, each of S_i positions, has the factors [A_i] and [B_i],
put end to end along the positions; where a use has the two sides the other way round, as that of a transposed weight
does, they are swapped. Everything else, and what takes no less room for each cotangent in factors, is handed out as it
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend import core

from .paths import SCALED, Atom, Term, followed, is_zero, makers, step_back, terms, whole
from .rewriting import retraced, rewritten

Place = int | tuple[int, int]
"""Where a gradient is among the results: rows, or two factors."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A jaxpr of constants, residuals and a cotangent, and for each parameter where its gradient is among its results.

    Results are rows (P_l,), and factors (S, p); equal ones are there once.
    """

    jaxpr: Any
    places: tuple[Place, ...]

    @property
    def numbers(self) -> int:
        """In all gradients as they are handed out."""
        return sum(math.prod(v.aval.shape) for v in self.jaxpr.outvars)

    @property
    def moved(self) -> tuple[bool, ...]:
        """For each result, whether it depends on the cotangent."""
        known = reached(self.jaxpr, self.jaxpr.invars[-1:])
        return tuple(not isinstance(v, core.Literal) and v in known for v in self.jaxpr.outvars)

    def blocks(self, results: Sequence[Any]) -> tuple[Any, ...]:
        """Results in the order of the parameters; those that share one share the array."""
        return tuple(results[p] if isinstance(p, int) else (results[p[0]], results[p[1]]) for p in self.places)


@dataclass(frozen=True)
class Side:
    """A factor (S, p) that is a variable with its contracted axes in front, the pieces of the others in some order."""

    var: Any
    contracted: tuple[int, ...]
    atoms: tuple[Atom, ...]

    @property
    def width(self) -> int:
        """Numbers at each position, p."""
        return math.prod(atom.size for atom in self.atoms)

    @property
    def positions(self) -> int:
        """How many, S."""
        return math.prod(self.var.aval.shape[axis] for axis in self.contracted)

    def of(self, array: Any) -> Any:
        """The factor, from the value of the variable."""
        shape: list[int] = []
        places: dict[Any, int] = {}
        for axis, length in enumerate(array.shape):
            own = sorted((a for a in self.atoms if a.source[1] == axis), key=lambda a: -a.stride)
            places.update({a: len(shape) + i for i, a in enumerate(own)})
            if axis in self.contracted:
                places[axis] = len(shape)
                shape.append(length)
            shape.extend(a.size for a in own)
        order = [places[key] for key in (*self.contracted, *self.atoms)]
        return array.reshape(shape).transpose(order).reshape(self.positions, self.width)


@dataclass(frozen=True)
class Product:
    """One term of a gradient: two sides in C order of the parameter, and what scales it."""

    sides: tuple[Side, Side]
    scales: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Lookup:
    """A gradient that adds up rows (S, q) at indices (S,), as that of a table does."""

    indices: Any
    rows: Any
    window: tuple[int, ...]
    clipped: bool
    inside: bool
    scales: tuple[tuple[str, Any], ...]

    def of(self, indices: Any, rows: Any, length: int) -> tuple[Any, Any]:
        """Indices and rows, which are zero where an index is out of a table of this length."""
        batch = [axis for axis in range(rows.ndim) if axis not in self.window]
        index = indices.reshape(-1)
        rows = rows.transpose(*batch, *self.window).reshape(index.size, -1)
        if self.clipped:
            return jnp.clip(index, 0, length - 1), rows
        if self.inside:
            return index, rows
        return index, jnp.where(((index >= 0) & (index < length))[:, None], rows, 0)


def planned(linear: Any, uses: bool) -> Plan:
    """How to hand out the gradients that are the results of a linear jaxpr.

    With `uses`, tables give the indices of their rows, and a bias the factors of its weight, with ones for inputs.
    """
    jaxpr = rewritten(linear)
    made = makers(jaxpr)
    moved = reached(jaxpr, jaxpr.invars[-1:])
    found = [_products(made, moved if uses else None, out) for out in jaxpr.outvars]
    sides = [
        (side, which)
        for parts in found
        if parts is not None and len(parts) == 1 and isinstance(parts[0], Product) and not parts[0].scales
        for which, side in enumerate(parts[0].sides)
    ]
    shared = [
        _bias(made, out, sides) if uses and f is None else None for out, f in zip(jaxpr.outvars, found, strict=True)
    ]
    places: list[Place] = []

    def outputs(read: Callable[[Any], Any]) -> list[Any]:
        results = Results()
        for out, parts, bias in zip(jaxpr.outvars, found, shared, strict=True):
            if parts is not None:
                places.append(_in_factors(results, parts, read, out.aval))
            elif bias is not None:
                places.append(_with_ones(results, bias, read, out.aval.dtype))
            else:
                places.append(results.add(read(out).reshape(-1)))
        return results.arrays

    return Plan(retraced(jaxpr, lambda eqn, inputs: None, outputs), tuple(places))


class Results:
    """Arrays, each once."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self._places: dict[Any, int] = {}

    def add(self, array: Any) -> int:
        """Where it is from now on."""
        self.arrays.append(array)
        return len(self.arrays) - 1

    def once(self, key: Any, make: Callable[[], Any]) -> int:
        """Where what was made for this key is."""
        if key not in self._places:
            self._places[key] = self.add(make())
        return self._places[key]


def _in_factors(results: Results, parts: Sequence[Any], read: Callable[[Any], Any], aval: Any) -> tuple[int, int]:
    """Add the factors of a gradient."""
    if isinstance(parts[0], Lookup):
        pairs = [part.of(read(part.indices), read(part.rows), aval.shape[0]) for part in parts]
        rows = [_scaled(rows, part, read) for part, (_, rows) in zip(parts, pairs, strict=True)]
        return results.add(_end_to_end([index for index, _ in pairs])), results.add(_end_to_end(rows))
    if len(parts) == 1 and not parts[0].scales:
        first, second = (_once(results, side, read, aval.dtype) for side in parts[0].sides)
        return first, second
    left = [part.sides[0].of(read(part.sides[0].var)) for part in parts]
    right = [_scaled(part.sides[1].of(read(part.sides[1].var)), part, read) for part in parts]
    first, second = (results.add(_end_to_end([a.astype(aval.dtype) for a in side])) for side in (left, right))
    return first, second


def _with_ones(results: Results, bias: tuple[Side, int], read: Callable[[Any], Any], dtype: Any) -> tuple[int, int]:
    side, which = bias
    own = _once(results, side, read, dtype)
    ones = results.once((side.positions, dtype), lambda: jnp.ones((side.positions, 1), dtype))
    return (own, ones) if which == 0 else (ones, own)


def _once(results: Results, side: Side, read: Callable[[Any], Any], dtype: Any) -> int:
    return results.once((side, dtype), lambda: side.of(read(side.var)).astype(dtype))


def _scaled(array: Any, part: Any, read: Callable[[Any], Any]) -> Any:
    for name, number in part.scales:
        array = -array if name == "neg" else array * read(number) if name == "mul" else array / read(number)
    return array


def _end_to_end(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def reached(jaxpr: Any, sources: Sequence[Any]) -> set[Any]:
    """All variables that depend on `sources`."""
    known = set(sources)
    for eqn in jaxpr.eqns:
        if any(not isinstance(a, core.Literal) and a in known for a in eqn.invars):
            known.update(eqn.outvars)
    return known


def _products(made: dict[Any, Any], moved: set[Any] | None, out: Any) -> list[Product] | list[Lookup] | None:
    """The terms of a gradient if they are products, or rows of a table, that take less room than it; else None.

    With `moved`, what depends on the cotangent, only this counts: the other side is there once for all cotangents.
    """
    parts = terms(made, out)
    tables = [_lookup(made, term, out) for term in parts]
    if moved is not None and tables and None not in tables:
        return tables  # type: ignore[return-value]
    products = [product for term in parts if (product := _product(made, term)) is not None]
    widths = {(product.sides[0].width, product.sides[1].width) for product in products}
    if len(products) < max(1, len(parts)) or len(widths) > 1:
        return None
    length = sum(product.sides[0].positions for product in products)
    counted = [moved is None or any(p.sides[i].var in moved for p in products) for i in (0, 1)]
    pair = min(widths)
    room = length * sum(width for width, counts in zip(pair, counted, strict=True) if counts)
    return None if room >= math.prod(pair) else products


def _product(made: dict[Any, Any], term: Term) -> Product | None:
    eqn = term.eqn
    if eqn is None or eqn.primitive.name != "dot_general" or any(isinstance(a, core.Literal) for a in eqn.invars):
        return None
    contracted, batch = eqn.params["dimension_numbers"]
    if batch[0] or any(not jnp.issubdtype(a.aval.dtype, jnp.floating) for a in eqn.invars):
        return None
    axes = []
    for side, (operand, own) in enumerate(zip(eqn.invars, contracted, strict=True)):
        shape = operand.aval.shape
        axes += whole(side, shape, [axis for axis in range(len(shape)) if axis not in own])
    atoms = followed(axes, term.path)
    if not atoms:
        return None
    split = [tuple(a for a in atoms if a.source[0] == side) for side in (0, 1)]
    first = atoms[0].source[0]
    if [*split[first], *split[1 - first]] != atoms:
        return None
    sides = [_side(made, *given) for given in zip(eqn.invars, contracted, split, strict=True)]
    return Product((sides[first], sides[1 - first]), term.scales)


def _side(made: dict[Any, Any], var: Any, contracted: Sequence[int], atoms: Sequence[Atom]) -> Side:
    """A side of a product, as what was transposed to make it, so that uses of one array are known to be that."""
    turned = list(range(len(var.aval.shape)))
    while (eqn := made.get(var)) is not None and eqn.primitive.name == "transpose":
        turned = [eqn.params["permutation"][axis] for axis in turned]
        var = eqn.invars[0]
    own = tuple(Atom((0, turned[a.source[1]]), a.size, a.stride) for a in atoms)
    return Side(var, tuple(turned[axis] for axis in contracted), own)


def _lookup(made: dict[Any, Any], term: Term, out: Any) -> Lookup | None:
    """Rows added up in a table of zeros, whose path to the gradient moves nothing."""
    eqn = term.eqn
    if eqn is None or eqn.primitive.name != "scatter-add" or len(eqn.outvars[0].aval.shape) < 2:
        return None
    numbers = eqn.params["dimension_numbers"]
    shape = eqn.outvars[0].aval.shape
    moved = any(e.primitive.name not in SCALED for e in term.path)
    if moved or numbers.scatter_dims_to_operand_dims != (0,) or numbers.inserted_window_dims != (0,):
        return None
    if numbers.operand_batching_dims or eqn.params.get("update_consts"):
        return None
    table, indices, updates = eqn.invars
    if (
        not is_zero(made.get(table))
        or any(isinstance(a, core.Literal) for a in (indices, updates))
        or updates.aval.dtype != out.aval.dtype
    ):
        return None
    window = tuple(numbers.update_window_dims)
    if tuple(updates.aval.shape[axis] for axis in window) != shape[1:]:
        return None
    mode = eqn.params["mode"]
    inside = mode == lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return Lookup(indices, updates, window, mode == lax.GatherScatterMode.CLIP, inside, term.scales)


def _bias(made: dict[Any, Any], out: Any, sides: Sequence[tuple[Side, int]]) -> tuple[Side, int] | None:
    """The side of another gradient of which this one is the sum over positions, and which of the two it is there."""
    var, path = out, tuple[Any, ...]()
    while not isinstance(var, core.Literal):
        for side, which in sides:
            if side.var is var:
                shape = var.aval.shape
                atoms = followed(whole(0, shape, range(len(shape))), path)
                if atoms is not None and tuple(atoms) == side.atoms:
                    return side, which
        eqn = step_back(made, var)
        if eqn is None:
            return None
        var, path = eqn.invars[0], (eqn, *path)
    return None
