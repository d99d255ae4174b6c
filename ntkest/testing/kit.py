"""`check_linearization` and `check_backend`: all laws, on one's own linearization or on models with known Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..linearization import Array, Linearization, tolerance
from . import laws
from .cases import Case, cases
from .host import from_host, to_host
from .subject import ConformanceError, Subject, require


def check_linearization(
    J: Linearization,
    *,
    as_params: Callable[[Linearization, dict[str, Array]], Any] | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Check the laws of the protocol on a linearization of one's own.

    It needs no known Jacobian: what is checked are types and shapes, linearity, the adjoint identity, that batches and
    chunks change nothing, that misfits are refused, that calls have no side effects and, with `as_params`,
    that J agrees with central differences of its own outputs.

    Parameters
    ----------
    J : Linearization
        Any; from dozens to a few million parameters is sensible.
    as_params : callable, optional
        ``as_params(J, arrays)``: from a dict of arrays by parameter name to what ``J.at`` takes, for
        example ``lambda J, arrays: arrays``. Without it `at` is left alone.
    rtol : float, optional
        Allowed difference relative to the largest entry; default 3 √eps of the lowest precision in J.
    seed : int
        Of the probes.

    Raises
    ------
    ConformanceError
        An AssertionError that begins with the name of the broken law.

    Notes
    -----
    About 150 passes a mode.
    """
    try:
        epsilon = Subject(J, 0.0).epsilon
    except Exception as error:
        raise ConformanceError(f"protocol: outputs and params cannot be read ({error})") from error
    _check_laws(Subject(J, tolerance(epsilon) if rtol is None else rtol, seed), as_params)


def check_backend(
    make: Callable[[Case], Linearization],
    *,
    as_params: Callable[[Linearization, dict[str, Array]], Any] | None = None,
    primal: bool = True,
    dtype: str = "float32",
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Check an adapter: the laws of the protocol, and the Jacobians of small models that are known in closed form.

    An adapter for a framework with functions of a dict of arrays needs five lines::

        def make(case):
            params = {name: framework.array(p) for name, p in case.params.items()}
            f = lambda params, x: case.function(framework.numpy, params, x)
            return ntkest.linearize(f, params, framework.array(case.inputs))

        ntkest.testing.check_backend(make)

    Parameters
    ----------
    make : callable
        From a `Case` to a linearization whose ``param_names`` are those of ``case.params``, in any order. It is called
        several times a case, and must not hand the same arrays out twice.
    as_params : callable, optional
        ``as_params(J, arrays)``: from a dict of arrays by name to what ``J.at`` takes; default, that dict.
    primal : bool
        False for an adapter that knows J but not f: outputs, `at` and differences are left out.
    dtype : str
        "float32" or "float64": of the arrays in the cases. An adapter may narrow it.
    rtol : float, optional
        Allowed difference relative to the largest entry; default 2000 eps of the lowest precision in J.
    seed : int
        Of the cases and the probes.

    Raises
    ------
    ConformanceError
        An AssertionError that names the case and the broken law, with numbers.

    Notes
    -----
    What needs a framework's own means is left to an adapter's own tests: in-place updates, train and eval mode,
    selection of parameters, random layers, and what is compiled how often.
    """
    if as_params is None:
        as_params = _as_dict
    for case in cases(dtype, seed):
        try:
            J = make(case)
        except Exception as error:
            raise ConformanceError(
                f"[{case.name}] make: raised {type(error).__name__} on a model that it should take: {error}"
            ) from error
        try:
            subject = Subject(J, 0.0, seed)
            subject.rtol = 2000 * subject.epsilon if rtol is None else rtol
            laws.protocol(subject)
            require(
                set(J.param_names) == set(case.params),
                "names",
                f"param_names must be {sorted(case.params)}, in any order, got {sorted(J.param_names)}",
            )
            # Chunks do not know the model: after one net, a length with a remainder is enough.
            lengths = (1, 2, 3, laws.MANY, None) if case.name == "two layers" else (3,)
            _check_laws(subject, as_params if primal else None, lengths)
            _against_closed_form(subject, case, primal)
            _against_single_examples(subject, case, make)
        except ConformanceError as error:
            raise ConformanceError(f"[{case.name}] {error}") from error


def _as_dict(J: Linearization, arrays: dict[str, Array]) -> dict[str, Array]:
    return arrays


def _check_laws(
    subject: Subject,
    as_params: Callable[[Linearization, dict[str, Array]], Any] | None,
    lengths: tuple[int | None, ...] = (1, 2, 3, laws.MANY, None),
) -> None:
    todo: list[tuple[str, Callable[[], None]]] = [
        (law.__name__, partial(law, subject))
        for law in (
            laws.protocol,
            laws.images,
            laws.adjoint,
            laws.linearity,
            laws.misfits,
            laws.examples,
            laws.compact,
            laws.kernels,
            laws.scale,
        )
    ]
    todo.append(("chunks", lambda: laws.chunks(subject, lengths)))
    if as_params is not None:
        todo.append(("finite differences", lambda: laws.finite_differences(subject, as_params)))
    todo.append(("values", lambda: laws.values(subject, as_params)))
    for name, law in todo:
        try:
            law()
        except ConformanceError:
            raise
        except Exception as error:
            raise ConformanceError(f"{name}: a call raised {type(error).__name__}: {error}") from error


def _against_closed_form(s: Subject, case: Case, primal: bool) -> None:
    names, jacobian = s.J.param_names, case.jacobian()
    if primal:
        for name, param in zip(names, s.J.params, strict=True):
            s.close("params", f"parameter {name!r}", to_host(param), case.params[name].astype(np.float64))
        s.close("outputs", "f(params, x)", to_host(s.J.outputs), case.outputs())
    A = [jacobian[name] for name in names]
    peak = max(float(np.max(np.abs(a))) for a in A)
    if "vjp" in s.J.modes:
        omega = s.cotangents(laws.MANY)
        wanted = [to_host(omega) @ a for a in A]
        s.close("closed form", "vjp", s.vjp(omega), wanted)
        for name, block, a in zip(names, s.vjp(omega), A, strict=True):
            require(
                bool(np.any(a)) or not np.any(block), "zero blocks", f"block {name!r} must be zero: f ignores {name!r}"
            )
    if "jvp" in s.J.modes:
        v = s.tangents(laws.MANY)
        wanted_image = sum(to_host(b) @ a.T for b, a in zip(v, A, strict=True))
        s.close("closed form", "jvp", s.jvp(v), wanted_image, scale=peak)


def _against_single_examples(s: Subject, case: Case, make: Callable[[Case], Linearization]) -> None:
    """If J says that examples are independent, rows of one example are those of a linearization of it alone."""
    if s.J.examples is None:
        return
    require(
        case.axis is not None and s.J.examples[0] == case.axis,
        "examples",
        f"examples={s.J.examples}, but "
        + ("examples interact" if case.axis is None else f"the axis of examples is {case.axis}; None is right too"),
    )
    axis, count = s.J.examples
    if "vjp" not in s.J.modes:
        return
    for index in (0, count - 1):
        alone = Subject(make(case.example(index)), s.rtol)
        omega = alone.cotangents(3)
        shape = list(s.J.outputs.shape)
        supported = np.zeros((3, *shape))
        where = (slice(None),) * (axis + 1) + (slice(index, index + 1),)
        supported[where] = to_host(omega).reshape(3, *alone.J.outputs.shape)
        probe = from_host(s.J.xp, supported.reshape(3, -1), s.J.outputs)
        images = dict(zip(alone.J.param_names, alone.vjp(omega), strict=True))
        s.close(
            "examples",
            f"vjp of cotangents on example {index}, against that example alone,",
            s.vjp(probe),
            [images[name] for name in s.J.param_names],
        )
