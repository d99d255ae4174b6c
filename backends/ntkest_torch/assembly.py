"""The gradient of one parameter block, from the layers that use it: as rows, or as factors of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from .convolved import in_groups, pays
from .layers import Convolution, Dense, Lookup, Sides, multiplied
from .taps import Place, Use


class Seen:
    """Inputs and cotangents of the layers in a slice of examples, by the number of the use; what is made of them, once.

    `inputs` have shapes (n, *inputs of one example), cotangents `behind` (c, n, *outputs for one example).
    """

    def __init__(self, uses: Sequence[Use], inputs: Sequence[torch.Tensor]) -> None:
        self._uses, self._inputs = uses, inputs
        self._prepared: dict[int, torch.Tensor] = {}
        self._behind: Mapping[int, torch.Tensor] = {}
        self._vectors: dict[int, torch.Tensor] = {}

    def of(self, behind: Mapping[int, torch.Tensor]) -> Seen:
        """The same inputs with other cotangents."""
        other = Seen(self._uses, self._inputs)
        other._prepared, other._behind = self._prepared, behind
        return other

    def vectors(self, number: int) -> torch.Tensor:
        """Cotangents (c, n, S, out)."""
        if number not in self._vectors:
            self._vectors[number] = self._uses[number].layer.vectors(self._behind[number])
        return self._vectors[number]

    def sides(self, number: int) -> Sides:
        """Both sides of the gradient of the weight."""
        layer = self._uses[number].layer
        if number not in self._prepared:
            self._prepared[number] = layer.prepared(self._inputs[number])
        return layer.sides(self._behind[number], self.vectors(number), self._prepared[number])

    def of_kernel(self, number: int) -> torch.Tensor:
        """The gradient of a convolution's weight, (c, n, P)."""
        layer, a, b = self._uses[number].layer, self._inputs[number], self._behind[number]
        if type(layer) is Convolution and pays(layer, a, b):  # not if transposed: a and b would change places
            return in_groups(layer, a, b)
        return multiplied(self.sides(number), layer.groups)


class Gradient:
    """The gradient of the parameter block `index`, of this `shape`, that the uses cover."""

    def __init__(self, index: int, shape: Sequence[int], uses: Sequence[Use]) -> None:
        self._p, self._q = shape[0], math.prod(shape[1:])
        self._weights, self._biases = (
            [(number, use, place) for number, use in enumerate(uses) if (place := of(use)) and place.block == index]
            for of in (_weight, _bias)
        )
        self._positions = sum(use.positions for _, use, _ in self._weights)
        self._factored = not self._biases and all(use.layer.groups == 1 for _, use, _ in self._weights)
        self.looked_up = self._factored and all(
            isinstance(use.layer, Lookup) and not place.flipped for _, use, place in self._weights
        )
        """Whether rows of a table are looked up and nothing else is done with it."""
        alone = self._biases[0] if len(self._biases) == 1 and not self._weights else None
        self._beside = alone is not None and isinstance(alone[1].layer, Dense) and alone[1].shape[-1:] == shape
        """A bias whose left factor is also that of its weight."""

    @property
    def uses(self) -> set[int]:
        """The numbers of the uses."""
        return {number for number, *_ in (*self._weights, *self._biases)}

    @property
    def numbers(self) -> int:
        """The size of a gradient, by factors if they are smaller."""
        size = self._p * self._q
        return min(size, self._positions * (self._p + self._q)) if self._factored else size

    def shared_in_factors(self, count: int) -> bool:
        """Whether factors are worth handing out for `count` cotangents, where sides that are common come only once."""
        if not self._factored:
            return self._beside and self._biases[0][1].positions == 1
        left, right = (count if varies else 1 for varies in self._varies)
        size = self._positions * (left * self._p + right * self._q)
        return self.looked_up or size <= count * self._p * self._q

    @property
    def in_factors(self) -> bool:
        """Whether factors are smaller for a single cotangent."""
        return self.numbers < self._p * self._q

    @property
    def _varies(self) -> tuple[bool, bool]:
        """Which factor depends on the cotangent."""
        found = [use.layer.varies[:: -1 if place.flipped else 1] for _, use, place in self._weights]
        return any(left for left, _ in found), any(right for _, right in found)

    def rows(self, seen: Seen) -> torch.Tensor:
        """(c, n, P_l)."""
        terms = [_within(seen.vectors(number).sum(2), place.start, self._p) for number, _, place in self._biases]
        for number, use, place in self._weights:
            if isinstance(use.layer, Lookup) and not place.flipped:
                terms.append(self._scattered(*seen.sides(number), place))
            elif isinstance(use.layer, Convolution):
                terms.append(_within(seen.of_kernel(number), place.start * self._q, self._p * self._q))
            else:
                terms.append(multiplied(self._sides(seen, number, place)))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def factors(self, seen: Seen, shared: bool) -> Sides:
        """(c, n, S, p) and (c, n, S, q); with `shared`, c is 1 where none varies, and rows of a table are integers."""
        found = self._factors(seen, shared)
        if shared:
            return found
        count = max(side.shape[0] for side in found)
        left, right = (side.expand(count, *side.shape[1:]) for side in found)
        return left, right

    def _factors(self, seen: Seen, shared: bool) -> Sides:
        if self._beside:
            left = seen.vectors(self._biases[0][0])
            return left, left.new_ones(1, *left.shape[1:3], 1)
        if shared and self.looked_up:
            pairs = [(seen.sides(number), place) for number, _, place in self._weights]
            return _joined([(ids + place.start, right) for (ids, right), place in pairs])
        return _joined([self._sides(seen, number, place) for number, _, place in self._weights])

    def _sides(self, seen: Seen, number: int, place: Place) -> Sides:
        """Sides as they belong to the whole block, of which the layer may have used some rows, or the transpose."""
        left, right = seen.sides(number)
        if not left.is_floating_point():
            ids, size = (left, self._q) if place.flipped else (left + place.start, self._p)
            left = torch.nn.functional.one_hot(ids, size).to(right.dtype)
        if place.flipped:
            left, right = right, left
        return _within(left, place.start, self._p), right

    def _scattered(self, ids: torch.Tensor, right: torch.Tensor, place: Place) -> torch.Tensor:
        empty = right.new_zeros(*right.shape[:2], self._p, self._q)
        return empty.scatter_add(2, (ids + place.start).unsqueeze(-1).expand(right.shape), right).flatten(2)


def _weight(use: Use) -> Place | None:
    return use.weight


def _bias(use: Use) -> Place | None:
    return use.bias


def _within(x: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """The last axis as the part from `start` of one of `size`, with zeros around."""
    width = x.shape[-1]
    return x if width == size else torch.nn.functional.pad(x, (start, size - start - width))


def _joined(pairs: Sequence[Sides]) -> Sides:
    """All positions of all uses, each side for as many cotangents as the one with the most has."""
    left, right = (
        parts[0]
        if len(parts) == 1
        else torch.cat([part.expand(max(p.shape[0] for p in parts), *part.shape[1:]) for part in parts], dim=2)
        for parts in zip(*pairs, strict=True)
    )
    return left, right
