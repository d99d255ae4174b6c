"""What an estimator works on: one or more kernels on the same outputs, and the moments that are wanted of them.

Every quantity of ntkest is a function of four kinds of *moment*:

=====================  ==================================================================
("trace", a)           tr K_a
("square", a)          ‖K_a‖_F²
("cross", a, b)        ⟨K_a, K_b⟩_F, a < b
("target", a)          yᵀ K_a y / ‖y‖²
=====================  ==================================================================

With centring, K stands for HKH throughout. All are kept for images scaled by 2**-e_a (`Problem.exponents`), so that
they fit float32 whatever the scale of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..linearization import (
    Array,
    Expand,
    Linearization,
    NonFiniteError,
    Reduce,
    Tree,
    beside,
    dtype_name,
    settled,
)
from ..probes import Centre, Probes, cotangent_expander, probe_exponent
from ..tangents import Gram, Groups, SquareNorms

SMALL = 2**18
"""Numbers of an array up to which a step on the host is not slower than elsewhere."""

Key = tuple[Any, ...]
"""The name of a moment, as in the table above."""


@dataclass(frozen=True)
class Bound:
    """An array-only function with its static arguments: hashable by value, as compilers ask."""

    function: Callable[..., Any]
    static: tuple[Any, ...]

    def __call__(self, *arrays: Any) -> Any:
        """The function of the rest of its arguments."""
        return self.function(*self.static, *arrays)


class Counted:
    """A linearization that counts the probes pushed through it."""

    def __init__(self, J: Linearization, chunk: int | None = None) -> None:
        self.J = J
        self.chunk = chunk
        self.n_jvp = 0
        self.n_vjp = 0

    def map_jvp(
        self, reduce: Reduce, probes: Tree, expand: Expand | None, count: int, J: Linearization | None = None
    ) -> Tree:
        """`Linearization.map_jvp` of `count` probes, by another form of J if one is given."""
        self.n_jvp += count
        return (self.J if J is None else J).map_jvp(reduce, probes, expand=expand, chunk=self.chunk)

    def map_vjp(
        self, reduce: Reduce, probes: Tree, expand: Expand | None, count: int, J: Linearization | None = None
    ) -> Tree:
        """`Linearization.map_vjp` of `count` probes, by another form of J if one is given."""
        self.n_vjp += count
        return (self.J if J is None else J).map_vjp(reduce, probes, expand=expand, chunk=self.chunk)

    @property
    def compact(self) -> Linearization:
        """The same kernel with fewer parameters if there is one such, as `Compacted` has it, else J."""
        return getattr(self.J, "compact", self.J)

    def pull(self, reduce: Reduce, probes: Tree, expand: Expand | None, count: int) -> Tree:
        """`map_vjp` where nothing but inner products of the images is wanted, or their images by `push`."""
        return self.map_vjp(reduce, probes, expand, count, self.compact)

    def push(self, reduce: Reduce, images: Tree, count: int) -> Tree:
        """`map_jvp` of combinations of `count` images that `pull` gave."""
        return self.map_jvp(reduce, images, None, count, self.compact)

    def map_example_vjp(self, reduce: Reduce, probes: Tree, expand: Expand | None, count: int) -> Tree:
        """`ExampleGradients.map_example_vjp` of `count` probes, a pass each."""
        self.n_vjp += count
        J: Any = self.J
        return J.map_example_vjp(reduce, probes, expand=expand, chunk=self.chunk)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, compiled where the backend can do that."""
        compiler = getattr(self.J, "compile", None)
        return function if compiler is None else compiler(function)

    @property
    def passes(self) -> int:
        """AD passes so far; a JVP made of two VJPs counts two."""
        return self.n_vjp + self.n_jvp * self.J.passes_per_jvp


@dataclass(frozen=True)
class Moment:
    """An estimate of one moment, whole first and then by part."""

    value: Array
    """(rows,): rows is 1, or 1 + parts."""
    replicates: Array | None = None
    """(m, rows): the estimate without probe i; None where the value is exact."""
    offset: Array | None = None
    """(rows,): the part of the value that is exact, if any; the rest is an average over probes."""
    refits: Array | None = None
    """(m, rows): where probes also shape what they are measured against, the estimate as it would be had probe i never
    been drawn; `replicates` then only leave its sample out of the average. None where both are the same."""
    lean: float = 0.5
    """With `refits`, how far the error bar leans from the spread of samples, which errs low, to the jackknife of the
    whole, which errs high: the exponent of the latter in their weighted geometric mean. With `offset`, by which power
    of its own standard error a spread of few samples, which errs low, is widened. Both measured, for good coverage."""

    rounding: float = 1.0
    """How many times the usual rounding floor of an error bar lies under this one."""


@dataclass(frozen=True)
class Problem:
    """Kernels, targets and wanted moments."""

    kernels: tuple[Counted, ...]
    groups: Groups
    needs: frozenset[Key]
    target: Array | None = None
    """(1, M): the targets, flattened, centred if asked, scaled to entries near 1; in the dtype of the outputs."""
    target_norm: Array | None = None
    """(): squared norm of `target`."""
    centre: Centre | None = None
    memory: int = 2**31
    exponents: tuple[int, ...] = field(default=())

    @staticmethod
    def of(kernels: tuple[Counted, ...], **settings: Any) -> Problem:
        """A problem with the exponents that its linearizations ask for."""
        return Problem(kernels, exponents=tuple(probe_exponent(k.J) for k in kernels), **settings)

    @property
    def xp(self) -> Any:
        """The array namespace."""
        return self.kernels[0].J.xp

    def compiled(self, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
        """`function` with its first arguments, hashable by value, fixed; compiled where the backend can do that."""
        return self.kernels[0].compile(Bound(function, static))

    def on_host(self, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
        """`function` of a namespace, `static` and trees of small arrays, in NumPy.

        A step there costs a microsecond, and nothing is compiled for numbers of probes that are soon others. Where
        arrays are traced, differentiated or large, they stay where they are, and `function` is `compiled`.
        """

        def run(*arrays: Any) -> Any:
            here = None if any(getattr(kernel.J, "live", False) for kernel in self.kernels) else _on_host(arrays)
            if here is None:
                return self.compiled(function, self.xp, *static)(*self._placed(arrays))
            import array_api_compat.numpy as np_namespace  # not with ntkest: it takes its time

            try:
                with np.errstate(all="ignore"):  # what is not finite is told of where it becomes a result
                    return function(np_namespace, *static, *here)
            except np.linalg.LinAlgError as error:
                raise NonFiniteError(
                    "a factorisation of inner products of derivatives failed: one of these is not finite, or their "
                    "squares leave the range of the dtype; use float64, or rescale the outputs"
                ) from error

        return run

    def _placed(self, tree: Any) -> Any:
        """A tree with its arrays beside the model: some may have been on the host already."""
        if isinstance(tree, tuple):
            return tuple(map(self._placed, tree))
        like = self.kernels[0].J.outputs
        return beside(self.xp, tree, like, getattr(self.xp, dtype_name(tree.dtype))) if _is_host(tree) else tree

    @property
    def size(self) -> int:
        """M, the number of outputs."""
        return math.prod(self.kernels[0].J.outputs.shape)

    @property
    def indices(self) -> range:
        """Of the kernels."""
        return range(len(self.kernels))

    @property
    def rows(self) -> int:
        """Length of every moment: the whole, and the parts if there are any."""
        return 1 + len(self.groups.names)

    @property
    def targets(self) -> int:
        """Passes that exact target moments cost: one VJP a kernel, where there are VJPs."""
        return sum(key[0] == "target" for key in self.needs) if self.has("vjp") else 0

    @property
    def passes(self) -> int:
        """AD passes spent so far on all kernels."""
        return sum(kernel.passes for kernel in self.kernels)

    def parameters(self, a: int) -> int:
        """P, the number of parameters of kernel a."""
        return sum(math.prod(p.shape) for p in self.kernels[a].J.params)

    def has(self, mode: str) -> bool:
        """Whether all kernels offer a mode, "jvp" or "vjp"."""
        return all(mode in kernel.J.modes for kernel in self.kernels)

    def wants(self, kind: str) -> bool:
        """Whether a moment of this kind is wanted."""
        return any(key[0] == kind for key in self.needs)

    @property
    def pairs(self) -> bool:
        """Whether norms or products of kernels are wanted, for which images have to be kept."""
        return self.wants("square") or self.wants("cross")

    def part_of(self, a: int) -> tuple[int, ...]:
        """For each parameter block of kernel a, its part."""
        return self.groups.part_of if self.groups.names else (0,) * len(self.kernels[a].J.params)

    def cotangents(self, a: int, probes: Array) -> tuple[Array, Expand | None]:
        """What `map_vjp` of kernel a takes: packed signs and how to expand them, or ready cotangents, scaled."""
        if self.xp.isdtype(probes.dtype, "real floating"):
            ready = probes if self.centre is None else self.centre(self.xp, probes)
            return self.scaled(a, ready), None
        return probes, cotangent_expander(self.kernels[a].J, self.exponents[a], self.centre)

    def scaled(self, a: int, rows: Array) -> Array:
        """Times 2**-exponent; most exponents are 0, and then the rows are not written anew."""
        return rows * 2.0 ** -self.exponents[a] if self.exponents[a] else rows

    def parameter_gram(self, a: int) -> Gram:
        """Inner products of parameter-side images of kernel a, by part."""
        return Gram(self.xp, self.part_of(a), self.groups.count)

    def parameter_norms(self, a: int) -> SquareNorms:
        """Squared norms of parameter-side images of kernel a, by part."""
        return SquareNorms(self.xp, self.part_of(a), self.groups.count)

    def whole_and_parts(self, parts: Array, axis: int) -> Array:
        """Put the sum over parts before the parts, where they are wanted side by side."""
        return whole_and_parts(self.xp, bool(self.groups.names), parts, axis)


class Estimator(Protocol):
    """One way to estimate moments. Stateless; what was spent lives in the state that `extend` returns."""

    @property
    def name(self) -> str:
        """As ``method=`` takes it."""
        ...

    @property
    def modes(self) -> frozenset[str]:
        """The AD modes that it needs."""
        ...

    @property
    def fewest(self) -> int:
        """The least number of samples that give a value and an error bar."""
        ...

    @property
    def first(self) -> int:
        """Samples before the first look at a tolerance: with fewer the error bar is not to be relied on."""
        ...

    @property
    def parts(self) -> bool:
        """Whether it also estimates each part of the parameters."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether samples in several steps are those of one longer run, so that a run can be carried on."""
        ...

    def passes(self, problem: Problem, samples: int) -> int:
        """AD passes that `samples` samples cost from scratch."""
        ...

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of samples that `passes` pay for."""
        ...

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """AD passes from `have` to `want` samples."""
        ...

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Probes start … stop-1."""
        ...

    def extend(self, problem: Problem, state: Any, probes: Probes) -> Any:
        """Push probes through the kernels; `state` is None at first."""
        ...

    def moments(self, problem: Problem, state: Any) -> dict[Key, Moment]:
        """The wanted moments from everything spent so far."""
        ...


def target_moments(problem: Problem) -> dict[Key, Moment]:
    """yᵀKy/‖y‖², exact with one VJP a kernel."""
    moments: dict[Key, Moment] = {}
    for a, kernel in enumerate(problem.kernels):
        if ("target", a) in problem.needs:
            assert problem.target is not None
            cotangent = problem.scaled(a, problem.target)
            norms = kernel.pull(problem.parameter_norms(a), cotangent, None, 1)
            share = problem.compiled(_share, problem.xp, bool(problem.groups.names))
            moments["target", a] = Moment(share(norms, problem.target_norm))
    return moments


def _is_host(array: Any) -> bool:
    return isinstance(array, np.ndarray | np.generic)


def _on_host(tree: Any) -> Any:
    """A tree of arrays and numbers with its arrays on the host; None if one of them cannot or should not be there."""
    if isinstance(tree, tuple):
        parts = tuple(map(_on_host, tree))
        refused = any(new is None and old is not None for new, old in zip(parts, tree, strict=True))
        return None if refused else parts
    if tree is None or isinstance(tree, int | float):
        return tree
    return settled(tree) if math.prod(tree.shape) <= SMALL else None


def whole_and_parts(xp: ModuleType, named: bool, parts: Array, axis: int) -> Array:
    """Put the sum over parts before the parts, where they are wanted side by side."""
    return xp.concat([xp.sum(parts, axis=axis, keepdims=True), parts], axis=axis) if named else parts


def _share(xp: ModuleType, named: bool, norms: Array, target_norm: Array) -> Array:
    return whole_and_parts(xp, named, norms, 1)[0, :] / target_norm
