"""How a gradient is made of other values of a jaxpr: a sum of terms, each of them turned and scaled.

What reverse mode puts between the product of two matrices and the gradient of a weight, or between a cotangent and the
gradient of a bias, is mostly a matter of names: axes are permuted, split, joined and summed over. Here that is followed
symbolically. An axis is a list of atoms, pieces of axes of the value that the path starts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

SUMS = frozenset({"add_any", "add"})
SAME_ORDER = frozenset({"reshape", "squeeze", "expand_dims", "copy", "copy_p", "broadcast_in_dim"})
SCALED = frozenset({"mul", "div", "neg"})

MANY = 64
"""Terms of a gradient past which it is taken as it is."""


class Atom(NamedTuple):
    """`size` indices in steps of `stride` along one axis of a source: (operand, axis)."""

    source: tuple[int, int]
    size: int
    stride: int


Axes = list[list[Atom]]


@dataclass(frozen=True, eq=False)
class Term:
    """One term of a sum: the equation that makes it (None for an argument), and those between it and the sum."""

    var: Any
    eqn: Any
    path: tuple[Any, ...]

    @property
    def scales(self) -> tuple[tuple[str, Any], ...]:
        """(operation, number or variable or None) for all scalings on the path."""
        scaled = [eqn for eqn in self.path if eqn.primitive.name in SCALED]
        return tuple((e.primitive.name, None if len(e.invars) == 1 else e.invars[1 - _operand(e)]) for e in scaled)


def makers(jaxpr: Any) -> dict[Any, Any]:
    """For each variable the equation that makes it."""
    return {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}


def terms(made: dict[Any, Any], out: Any, summed: bool = False) -> list[Term]:
    """The terms whose sum is `out`, without zeros; with `summed`, also through sums over axes.

    An `out` that is no sum is its own only term.
    """
    found = []
    for term in _terms(made, out, (), summed):
        found.append(term)
        if len(found) > MANY:
            return [Term(out, made.get(out), ())]
    return found


def _terms(made: dict[Any, Any], var: Any, path: tuple[Any, ...], summed: bool) -> Iterator[Term]:
    eqn = None if isinstance(var, core.Literal) else made.get(var)
    if eqn is None:
        yield Term(var, None, path)
    elif eqn.primitive.name in SUMS and len({a.aval.shape for a in eqn.invars}) == 1:
        for operand in eqn.invars:
            yield from _terms(made, operand, path, summed)
    elif _passes(eqn) or (summed and eqn.primitive.name == "reduce_sum"):
        yield from _terms(made, eqn.invars[_operand(eqn)], (eqn, *path), summed)
    elif not is_zero(eqn):
        yield Term(var, eqn, path)


def step_back(made: dict[Any, Any], var: Any) -> Any:
    """The equation that turns another variable, or sums it over axes, into this one; None if none does."""
    eqn = made.get(var)
    if eqn is None or eqn.primitive.name in (*SCALED, "convert_element_type"):
        return None
    return eqn if eqn.primitive.name == "reduce_sum" or _passes(eqn) else None


def _passes(eqn: Any) -> bool:
    """Whether the equation only turns, renames, widens or scales its operand."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "transpose":
        return True
    if name in SAME_ORDER:
        return (
            bool(eqn.invars[0].aval.size == out.size and eqn.params.get("dimensions") is None) and len(eqn.invars) == 1
        )
    if name == "convert_element_type":
        before, after = eqn.invars[0].aval.dtype, out.dtype
        return bool(jnp.issubdtype(before, jnp.floating) and jnp.promote_types(before, after) == after)
    return name in SCALED and _operand(eqn) >= 0


def _operand(eqn: Any) -> int:
    """Which operand is turned or scaled: for a scaling the one that is not a single number; -1 if neither is one."""
    if eqn.primitive.name not in SCALED or len(eqn.invars) == 1:
        return 0
    first, second = (not a.aval.shape for a in eqn.invars)
    if second and not first:
        return 0
    return 1 if first and not second and eqn.primitive.name == "mul" else -1


def is_zero(eqn: Any) -> bool:
    """Whether an equation makes zeros."""
    if eqn is None or eqn.primitive.name != "broadcast_in_dim":
        return False
    value = eqn.invars[0]
    return isinstance(value, core.Literal) and bool(value.val == 0)


def followed(axes: Axes, path: Sequence[Any]) -> list[Atom] | None:
    """The atoms of the result, in C order, of a path that starts from a value with `axes`; None if they split unevenly.

    Axes that are summed over lose their atoms.
    """
    for eqn in path:
        name = eqn.primitive.name
        if name == "transpose":
            axes = [axes[i] for i in eqn.params["permutation"]]
        elif name == "reduce_sum":
            axes = [group for i, group in enumerate(axes) if i not in eqn.params["axes"]]
        elif name in SAME_ORDER:
            regrouped = _regrouped([atom for group in axes for atom in group], eqn.outvars[0].aval.shape)
            if regrouped is None:
                return None
            axes = regrouped
    return _joined([atom for group in axes for atom in group])


def whole(operand: int, shape: Sequence[int], axes: Sequence[int]) -> Axes:
    """One atom for each of `axes` of an operand, none for those of size one."""
    return [[Atom((operand, axis), shape[axis], 1)] if shape[axis] > 1 else [] for axis in axes]


def _regrouped(atoms: list[Atom], shape: Sequence[int]) -> Axes | None:
    queue, groups = list(atoms), []
    for length in shape:
        group, left = [], length
        while left > 1:
            atom = queue.pop(0)
            if left % atom.size == 0:
                group.append(atom)
                left //= atom.size
            elif atom.size % left == 0:
                inner = atom.size // left
                group.append(Atom(atom.source, left, atom.stride * inner))
                queue.insert(0, Atom(atom.source, inner, atom.stride))
                left = 1
            else:
                return None
        groups.append(group)
    return groups


def _joined(atoms: list[Atom]) -> list[Atom]:
    """Neighbours that were one before."""
    found: list[Atom] = []
    for atom in atoms:
        last = found[-1] if found else None
        if last is not None and last.source == atom.source and last.stride == atom.stride * atom.size:
            found[-1] = Atom(atom.source, last.size * atom.size, atom.stride)
        else:
            found.append(atom)
    return found
