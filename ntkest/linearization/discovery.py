"""`linearize`, and how it finds the adapter for a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from .errors import InvalidTypeError, InvalidValueError, MissingBackendError, UnsupportedModeError
from .outputs import flatten
from .protocol import Backend, Linearization, Options

GROUP = "ntkest.backends"
"""Entry-point group of adapters. The name of an entry is the top-level module whose types it serves."""


def linearize(
    target: Any,
    /,
    *args: Any,
    output: Any = None,
    params: Any = None,
    batch_axis: int | str | None = "auto",
    backend: str | None = None,
    check: bool = True,
    copy: bool = False,
    differentiable: bool = False,
    **kwargs: Any,
) -> Linearization:
    """The Jacobian J of a model's outputs with respect to its parameters, at its present parameters.

    Two forms: ``linearize(module, *inputs)`` for a module that holds its parameters (torch, flax.nnx, Equinox), and
    ``linearize(f, params, *inputs)`` for a function ``f(params, *inputs)`` of a pytree of arrays.

    Parameters
    ----------
    target : module or callable
        What to differentiate. It is called as it is: train or eval mode is not switched.
    *args, **kwargs
        The inputs, as the model takes them; for a function, the parameters come first. A keyword of the model that has
        the name of one below is passed by position, or bound beforehand.
    output : str, int or callable, optional
        Picks what to differentiate from a dict, tuple or model-output object: a key, an index, an
        attribute, or a function such as ``lambda o: o[0][:, -1]``. Without it, several arrays are put side by side.
    params : str, list of str or callable, optional
        Parameters to differentiate: names, globs or a predicate on the dotted name
        (``"*lora_*"``, ``["head"]``). Default: all that are trainable.
    batch_axis : "auto", int or None
        Axis of the outputs that runs over examples. "auto" finds it where examples are seen not to interact.
    backend : str, optional
        Name of the adapter ("torch", "jax", "numpy"); by default the types of `target` and its parameters tell.
    check : bool
        Call the model twice and compare a JVP with a VJP (three forwards and a pass a mode). Skipped while tracing.
    copy : bool
        Keep copies of parameters and inputs, so that later in-place updates do not make J stale.
    differentiable : bool
        torch only: keep parameters live, so that gradients flow through estimates. jax always does.

    Returns
    -------
    Linearization

    Raises
    ------
    NTKError
        One of its subclasses: see ``ntkest.linearization.errors``.
    """
    if not callable(target):
        raise InvalidTypeError(
            f"linearize takes a module or a function, not {type(target).__name__}; for an explicit Jacobian use "
            "from_jacobian"
        )
    if batch_axis not in ("auto", None) and (isinstance(batch_axis, bool) or not isinstance(batch_axis, int)):
        raise InvalidValueError(f"batch_axis= takes 'auto', None or an axis number, not {batch_axis!r}")
    options = Options(output, params, batch_axis, check, copy, differentiable)
    return find_backend(target, args, backend).linearize(target, args, kwargs, options)


def find_backend(target: Any, args: tuple[Any, ...], name: str | None = None) -> Backend:
    """The adapter for a model: by name, else by the type of the model, else by the types of its parameters."""
    if name is not None:
        return _load(name)
    known = _entry_points()
    root = next((r for r in _roots(target) if r in known), None)
    if root is None and args:
        roots = [r for _, leaf in [("", args[0]), *flatten(args[0])] for r in _roots(leaf) if r in known]
        # NumPy arrays also appear as constants among another framework's parameters, so NumPy comes last.
        root = next((r for r in roots if r not in ("numpy", "autograd")), roots[0] if roots else None)
    if root is None:
        given = type(target).__name__
        seen = f" of {type(args[0]).__name__}" if args else ""
        raise MissingBackendError(
            f"no adapter for {given}{seen}; installed: {', '.join(sorted(known)) or 'none'}. Give backend=, or "
            "call linearize(f, params, *inputs) with a pytree of arrays as params"
        )
    return _load(root)


def value_and_gradient(
    function: Callable[..., Any], target: Any, args: tuple[Any, ...], name: str | None = None
) -> Callable[..., Any]:
    """By the adapter for a model, the values of a scalar function and its gradients; see `Differentiator`.

    Raises
    ------
    UnsupportedModeError
        The adapter does not differentiate through its linearizations.
    """
    backend = find_backend(target, args, name)
    found = getattr(backend, "value_and_gradient", None)
    if found is None:
        raise UnsupportedModeError(
            f"the {backend.name} adapter does not differentiate through kernels, as gradients with respect to inputs "
            "need; write the model in torch or jax"
        )
    return found(function)  # type: ignore[no-any-return]


def _roots(thing: Any) -> list[str]:
    """Top-level module names of the type of `thing` and of what it inherits from."""
    return [cls.__module__.partition(".")[0] for cls in type(thing).__mro__ if cls is not object]


@cache
def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points  # slow to import, and needed only here

    return {entry.name: entry for entry in entry_points(group=GROUP)}


@cache
def _load(name: str) -> Backend:
    known = _entry_points()
    if name not in known:
        raise MissingBackendError(f"backend={name!r} is not installed; installed: {', '.join(sorted(known)) or 'none'}")
    try:
        backend: Backend = known[name].load()
    except ImportError as error:
        extra = {"numpy": "autograd", "jaxlib": "jax", "flax": "jax", "equinox": "jax"}.get(name, name)
        raise MissingBackendError(
            f"the {name} adapter cannot be imported ({error}); try: python -m pip install 'ntkest[{extra}]'"
        ) from error
    return backend
