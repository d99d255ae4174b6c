"""The autodiff protocol: a Jacobian at a point, as two batched linear maps.

Everything that ntkest computes, it computes through the names below. An adapter turns a
framework's model into a `Linearization`; the estimators never learn which framework it was.

Shapes
------
M outputs in all, P parameters in all, in L blocks (one a parameter array) of P_1, …, P_L numbers; k probes.

* a *cotangent* batch has shape (k, M), in the dtype of the outputs, C order;
* a *tangent* batch is a tuple of L arrays (k, P_l), each in the dtype of its block, C order.

The parameter side is never flattened to one vector: inner products are sums over blocks, so layers
come apart for free.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

Array: TypeAlias = Any
"""An array of any Array API namespace."""

Blocks: TypeAlias = tuple[Array, ...]
"""One array (k, P_l) for each parameter block."""

Tree: TypeAlias = Any
"""An array, or a (nested) tuple of arrays, all with the same leading axis."""

Reduce: TypeAlias = Callable[[Any], Tree]
"""Array-only, hashable by value; maps the images of a chunk of c probes to a tree with leading axis c."""

Expand: TypeAlias = Callable[[Tree], Any]
"""Array-only, hashable by value; maps a chunk of packed probes to cotangents or tangents."""


@runtime_checkable
class Linearization(Protocol):
    """J = ∂f/∂θ at one θ. A value: it never changes, and calls to it have no side effects."""

    @property
    def xp(self) -> ModuleType:
        """The array-api-compat namespace of all arrays that go in and come out."""
        ...

    @property
    def outputs(self) -> Array:
        """The primal f(θ), in its own shape; M is its size."""
        ...

    @property
    def params(self) -> tuple[Array, ...]:
        """The parameter blocks of θ, each in its own shape; P_l is the size of block l."""
        ...

    @property
    def param_names(self) -> tuple[str, ...]:
        """One dotted name a block, for example ``"encoder.0.weight"``."""
        ...

    @property
    def examples(self) -> tuple[int, int] | None:
        """(axis, N) of `outputs` if outputs of different examples were seen not to interact, else None."""
        ...

    @property
    def modes(self) -> frozenset[str]:
        """The maps that this model has here: a subset of {"jvp", "vjp"}, never empty."""
        ...

    @property
    def passes_per_jvp(self) -> int:
        """1, or 2 where forward mode is replaced by a double VJP."""
        ...

    @property
    def exponent(self) -> int:
        """An integer e such that images of sign probes have entries near 2**e; 0 if that was not seen.

        Estimators scale their probes by 2**-e, which is exact, so that squares of images stay in
        the range of float32 whatever the scale of the model.
        """
        ...

    def jvp(self, tangents: Blocks) -> Array:
        """Blocks (k, P_l) to J v, (k, M). Costs k forward passes."""
        ...

    def vjp(self, cotangents: Array) -> Blocks:
        """(k, M) to Jᵀ ω, blocks (k, P_l). Costs k reverse passes."""
        ...

    def map_jvp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """Apply `reduce` to J v for chunks of probes, inside the adapter's own loop, and stack the results.

        Only the small results are kept, so the images need not fit in memory together. `probes` is a tree
        with leading axis k; `expand` turns a chunk of it into tangents (it is tangents already when
        None). `chunk` overrides the number of probes that are pushed through together.
        """
        ...

    def map_vjp(self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None) -> Tree:
        """The same for Jᵀ ω; `reduce` receives blocks (c, P_l)."""
        ...

    def chunk_size(self, mode: str, count: int) -> int:
        """How many of `count` probes are pushed through together in `mode` ("jvp" or "vjp") by default."""
        ...

    def at(self, params: Any) -> Linearization:
        """The same function at other parameters (given as to `linearize`), reusing what was compiled."""
        ...


def is_linearization(thing: Any) -> bool:
    """Whether `thing` follows the protocol."""
    return hasattr(thing, "map_vjp") and hasattr(thing, "map_jvp") and hasattr(thing, "outputs")


class ExampleGradients(Protocol):
    """Optional on a linearization, found by asking for the attribute ``map_example_vjp``; for where `examples` is set.

    With `examples` = (axis, N), let ω_n be the slice of a cotangent ω that belongs to example n, and J_n the
    rows of J that do. The sum of the J_nᵀ ω_n is Jᵀ ω, and a pass that leaves out that sum gives all N of them
    for the floating-point operations of one VJP.
    """

    @property
    def example_size(self) -> int:
        """Numbers in the image of one pair as `map_example_vjp` hands it out: P, or fewer with blocks in factors."""
        ...

    def map_example_vjp(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """Apply `reduce` to J_nᵀ ω_n for all probes ω and examples n, inside the adapter's own loop.

        Parameters
        ----------
        reduce : callable
            From blocks (r, P_l), the images of r of the k·N pairs of a probe and an example, in any order, to a tree
            with leading axis r whose rows depend each on its own image only. Array-only, hashable by value.
            A block may come in factors instead, a pair of arrays (r, S, p) and (r, S, q) with p·q = P_l, for images
            Σ_s left_s ⊗ right_s in C order, as dense layers give them: products of such images cost p + q
            multiplications where they would cost p·q. `unfactored` multiplies them out.
        probes, expand
            As for `Linearization.map_vjp`: k whole cotangents (k, M), or packed.
        chunk : int, optional
            How many of the pairs are pushed through together.

        Returns
        -------
        Tree
            The results for all pairs: its arrays have shape (k, N, …). Nothing else of size N·P is kept.
            Costs k reverse passes, in which the sum over examples is replaced by N images.
        """
        ...


class Compacted(Protocol):
    """Optional on a linearization, found by asking for the attribute ``compact``."""

    @property
    def compact(self) -> Linearization:
        """A linearization of the same outputs and kernel, block by block, with fewer parameters; or this one itself.

        A layer whose weight W (v, w) meets inputs at S < w positions sees no more of it than S directions, and may
        have S·v coordinates in place of W: those of W in an orthonormal basis. For each block J_l = J'_l V_lᵀ with
        orthonormal columns V_l, so that J_l J_lᵀ = J'_l J'_lᵀ, and Jᵀω and J'ᵀω have the same inner products.
        Passes are without the products of W's size that its gradient and its tangent take: half of them or more.

        Made at first use, for some passes, and kept. Names of blocks are the same, their shapes are not; there are
        no gradients of examples, and ``at`` is not to be called.
        """
        ...


class Uses(Protocol):
    """Optional on a linearization with `ExampleGradients`, found by asking for the attribute ``uses``."""

    def uses(self, cotangents: Array, start: int, stop: int) -> tuple[Array | tuple[Array, Array], ...]:
        """J_nᵀ ω_n for examples n = start … stop-1 and whole cotangents ω (k, M), as they are made.

        Returns
        -------
        tuple
            For each parameter block rows (k, n, P_l), or factors (k, n, S, p) and (k, n, S, q) as `map_example_vjp`
            has them, the first axis of one being 1 if it does not depend on ω: inputs of a layer are not repeated.
            A left factor may be integers (1, n, S) instead: the rows of a table that were looked up, standing for
            unit vectors. Such a block comes so for all examples, and for both sides of a product.
            Costs k reverse passes over these examples.
        """
        ...


class Live(Protocol):
    """Optional on a linearization, found by asking for the attribute ``live``."""

    @property
    def live(self) -> bool:
        """Whether results are to be differentiated although arrays have values: they must stay where they are then."""
        ...


class Products(Protocol):
    """Optional on a linearization, found by asking for the attribute ``fast_products``, which holds nothing of it."""

    def fast_products(self) -> AbstractContextManager[object]:
        """While it is entered, products of matrices are as fast as the adapter can make them, with usual rounding."""
        ...


class Compiler(Protocol):
    """Optional on a linearization, found by asking for the attribute ``compile``."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A compiled form of an array-only function that is hashable by value."""
        ...


class Backend(Protocol):
    """What an entry point of the group ``ntkest.backends`` names: one small module-level object.

    The name of the entry point is a top-level module name; the backend is loaded when the type of the
    model or of its parameters comes from that module, or when ``backend=`` names it.
    """

    @property
    def name(self) -> str:
        """The framework's name, for messages and results."""
        ...

    def linearize(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Linearization:
        """Make a linearization; `args` and `kwargs` are as given to `ntkest.linearize`.

        They come whole, so that a model may have keywords of any name, ``options`` too.
        """
        ...


class Differentiator(Protocol):
    """Optional on a backend, found by asking for the attribute ``value_and_gradient``."""

    def value_and_gradient(self, function: Callable[..., Array]) -> Callable[..., tuple[Array, tuple[Array, ...]]]:
        """The value of a scalar function of arrays, and its gradient with respect to them.

        Parameters
        ----------
        function : callable
            From a tuple of arrays, and any more arguments that are trees of arrays, to an array of shape (). It uses
            arrays only, and may call `linearize` with ``differentiable=True`` and ``check=False`` on models of this
            backend, at inputs among the arrays; gradients then go through the derivatives of the model.

        Returns
        -------
        callable
            Of the same arguments; returns the value and a tuple of gradients, one for each array of the first
            argument, with zeros for one that does not matter. It is to be kept: it may compile, once for all arguments
            of the same shapes.
        """
        ...


class Watcher(Protocol):
    """Optional on a backend, found by asking for the attribute ``activations``."""

    def activations(self, target: Any) -> Callable[[Array], tuple[Array | None, tuple[Array, ...]]] | None:
        """A function from the inputs of a module to what flows through it; None where that cannot be told.

        It returns the last hidden representation (N, …), or None where there is none, and what each batch
        normalisation is given, (N, channels, …). Gradients go through both, and nothing of the module is changed.
        """
        ...


class Options:
    """The keywords of `ntkest.linearize` that are not the model's own."""

    __slots__ = ("batch_axis", "check", "copy", "differentiable", "output", "params")

    def __init__(
        self,
        output: Any = None,
        params: Any = None,
        batch_axis: int | str | None = "auto",
        check: bool = True,
        copy: bool = False,
        differentiable: bool = False,
    ) -> None:
        self.output = output
        self.params = params
        self.batch_axis = batch_axis
        self.check = check
        self.copy = copy
        self.differentiable = differentiable
