"""The laws of the protocol, one function each: given a `Subject`, they return nothing or raise `ConformanceError`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import array_api_compat
import numpy as np

from ..kernels import ntk
from ..linearization import Array, Linearization, NTKError, UnsupportedModeError, identity, unfactored
from .host import from_host, to_host
from .subject import ConformanceError, Subject, require

AsParams = Callable[[Linearization, dict[str, Array]], Any]
"""From parameter arrays by name to what `at` takes."""

MANY = 7  # a number of probes that 2 and 3 do not divide
ROWS = 256  # the most outputs for which all of J is looked at


def protocol(s: Subject) -> None:
    """The attributes are there, fit together, and have the namespace that J names."""
    J = s.J
    require(isinstance(J, Linearization), "protocol", f"{type(J).__name__} lacks an attribute of Linearization")
    require(isinstance(J.params, tuple) and len(J.params) > 0, "protocol", "params must be a non-empty tuple")
    names = J.param_names
    require(
        isinstance(names, tuple) and all(isinstance(n, str) for n in names) and len(set(names)) == len(J.params),
        "protocol",
        f"param_names must be {len(J.params)} different strings in a tuple, got {names!r}",
    )
    for what, array in [("outputs", J.outputs), *zip(names, J.params, strict=True)]:
        given, wanted = array_api_compat.array_namespace(array).__name__, J.xp.__name__
        require(given == wanted, "protocol", f"{what} belongs to {given}, but xp is {wanted}")
        require(
            J.xp.isdtype(array.dtype, "real floating"), "protocol", f"{what} is {array.dtype}, not real floating point"
        )
    require(
        isinstance(J.modes, frozenset) and bool(J.modes) and J.modes <= {"jvp", "vjp"},
        "protocol",
        f"modes must be a non-empty frozenset out of 'jvp' and 'vjp', got {J.modes!r}",
    )
    require(J.passes_per_jvp in (1, 2), "protocol", f"passes_per_jvp must be 1 or 2, got {J.passes_per_jvp!r}")
    require(isinstance(J.exponent, int), "protocol", f"exponent must be an int, got {J.exponent!r}")
    if J.examples is not None:
        axis, count = J.examples
        shape = tuple(J.outputs.shape)
        require(
            0 <= axis < len(shape) and shape[axis] == count,
            "protocol",
            f"examples={J.examples} does not fit outputs of shape {shape}",
        )
    for mode in J.modes:
        size = J.chunk_size(mode, MANY)
        require(isinstance(size, int) and 1 <= size <= MANY, "protocol", f"chunk_size({mode!r}, {MANY}) gave {size!r}")


def images(s: Subject) -> None:
    """Images have the right shapes, dtypes and devices, are finite, and a batch equals its probes one by one."""
    if "jvp" in s.J.modes:
        v = s.tangents(MANY)
        together = s.jvp(v)
        require(bool(np.all(np.isfinite(together))), "images", "jvp gave NaN or infinity")
        alone = np.concatenate([s.jvp(tuple(b[i : i + 1, ...] for b in v)) for i in range(MANY)])
        s.close("images", "jvp of one probe after the other", alone, together)
    if "vjp" in s.J.modes:
        omega = s.cotangents(MANY)
        blocks = s.vjp(omega)
        require(all(bool(np.all(np.isfinite(b))) for b in blocks), "images", "vjp gave NaN or infinity")
        parts = [s.vjp(omega[i : i + 1, ...]) for i in range(MANY)]
        s.close(
            "images", "vjp of one probe after the other", [np.concatenate(p) for p in zip(*parts, strict=True)], blocks
        )


def adjoint(s: Subject) -> None:
    """⟨ω, J v⟩ = ⟨Jᵀ ω, v⟩ for all pairs of three probes."""
    if s.J.modes != {"jvp", "vjp"}:
        return
    omega, v = s.cotangents(3), s.tangents(3)
    forward, reverse = s.jvp(v), s.vjp(omega)
    left = to_host(omega) @ forward.T  # (3, 3)
    right = sum(image @ to_host(block).T for image, block in zip(reverse, v, strict=True))
    scale = float(np.linalg.norm(forward) * np.linalg.norm(to_host(omega)))
    s.close("adjoint identity", "⟨Jᵀω, v⟩ against ⟨ω, Jv⟩", np.asarray(right), left, scale=scale)


def linearity(s: Subject) -> None:
    """J(a u + b v) = a J u + b J v, and the same for Jᵀ."""
    a, b = 2.0, -0.5  # exact in every dtype
    if "jvp" in s.J.modes:
        u, v = s.tangents(3, 0), s.tangents(3, 1)
        mixed = s.jvp(tuple(a * x + b * y for x, y in zip(u, v, strict=True)))
        s.close("linearity", "jvp of a combination", mixed, a * s.jvp(u) + b * s.jvp(v))
    if "vjp" in s.J.modes:
        w, z = s.cotangents(3, 0), s.cotangents(3, 1)
        parts = [a * x + b * y for x, y in zip(s.vjp(w), s.vjp(z), strict=True)]
        s.close("linearity", "vjp of a combination", s.vjp(a * w + b * z), parts)


@dataclass(frozen=True)
class _Halved:
    """An `expand`: small integers to tangents or cotangents of half their size."""

    xp: Any
    dtypes: tuple[Any, ...]

    def __call__(self, packed: Any) -> Any:
        if isinstance(packed, tuple):
            return tuple(0.5 * self.xp.astype(p, d) for p, d in zip(packed, self.dtypes, strict=True))
        return 0.5 * self.xp.astype(packed, self.dtypes[0])


@dataclass(frozen=True)
class _Sums:
    """A `reduce` to a nested tuple: row sums (c,) of every block, and the first block (c, n) as it is."""

    xp: Any

    def __call__(self, parts: Any) -> Any:
        parts = parts if isinstance(parts, tuple) else (parts,)
        return tuple(self.xp.sum(b, axis=1) for b in parts), parts[0]


def chunks(s: Subject, lengths: tuple[int | None, ...] = (1, 2, 3, MANY, None)) -> None:
    """map_jvp and map_vjp give reduce(image) for every probe, in its place, whatever the chunk; `expand` is applied.

    Every length of a chunk is a compilation for adapters that compile, so `expand` meets only one that divides nothing.
    """
    xp, J = s.J.xp, s.J
    rng = np.random.default_rng(s.rows)
    for mode, likes, sizes in (("jvp", J.params, s.sizes), ("vjp", (J.outputs,), [s.rows])):
        if mode not in J.modes:
            continue
        signs = [2 * rng.integers(0, 2, (MANY, size)) - 1 for size in sizes]
        packed = tuple(
            xp.asarray(x.astype(np.int8), device=array_api_compat.device(p)) for x, p in zip(signs, likes, strict=True)
        )
        half = tuple(from_host(xp, 0.5 * x, p) for x, p in zip(signs, likes, strict=True))
        expand = _Halved(xp, tuple(p.dtype for p in likes))
        if mode == "jvp":
            wanted, run, full, thin = [s.jvp(half)], J.map_jvp, half, packed
        else:
            wanted, run, full, thin = s.vjp(half[0]), J.map_vjp, half[0], packed[0]
        sums = [block.sum(axis=1) for block in wanted]
        scale = max(float(np.max(np.sum(np.abs(block), axis=1))) for block in wanted)
        plain = [("", length, full, None) for length in lengths]
        for how, chunk, probes, unpack in [*plain, (" and expand=", 3, thin, expand)]:
            what = f"map_{mode} with chunk={chunk}{how}"
            totals, first = run(_Sums(xp), probes, expand=unpack, chunk=chunk)
            s.close("chunks", what, to_host(first), wanted[0])
            for total, expected in zip(totals, sums, strict=True):
                s.close("chunks", f"{what} and row sums", to_host(total), expected, scale=scale)
        wrong: Any
        for wrong in (0, -1, 1.5):
            _refused("chunks", f"map_{mode} with chunk={wrong}", partial(run, _Sums(xp), full, chunk=wrong))


def examples(s: Subject) -> None:
    """`map_example_vjp`, where there is one, gives the part of Jᵀ ω that each example has, whatever the chunk.

    That of example n is Jᵀ of ω with zeros at all other examples.
    """
    J: Any = s.J
    if J.examples is None or "vjp" not in J.modes or getattr(J, "map_example_vjp", None) is None:
        return
    axis, count = J.examples
    omega = s.cotangents(3)
    whole = to_host(omega).reshape(3, *J.outputs.shape)
    wanted = []
    for n in range(count):
        masked = np.zeros_like(whole)
        here = (slice(None),) * (axis + 1) + (slice(n, n + 1),)
        masked[here] = whole[here]
        wanted.append(s.vjp(from_host(J.xp, masked.reshape(3, -1), J.outputs)))
    blocks = [np.stack(parts, axis=1) for parts in zip(*wanted, strict=True)]  # (3, N, P_l)
    for chunk in (None, 1, 4):
        images = J.map_example_vjp(identity, omega, chunk=chunk)
        require(
            isinstance(images, tuple) and len(images) == len(blocks),
            "gradients of examples",
            f"map_example_vjp must hand reduce a tuple of {len(blocks)} blocks",
        )
        found = [to_host(unfactored(J.xp, image)) for image in images]
        s.close("gradients of examples", f"map_example_vjp with chunk={chunk}", found, blocks)
    handed = sum(math.prod(a.shape) for image in images for a in (image if isinstance(image, tuple) else (image,)))
    require(
        handed <= 3 * count * J.example_size,
        "gradients of examples",
        f"map_example_vjp hands out {handed / (3 * count):g} numbers a pair, example_size is {J.example_size}",
    )
    signs = np.sign(whole.reshape(3, -1))
    packed = J.xp.asarray(signs.astype(np.int8), device=array_api_compat.device(J.outputs))
    halves = J.map_example_vjp(identity, packed, expand=_Halved(J.xp, (J.outputs.dtype,)))
    total = [np.sum(to_host(unfactored(J.xp, image)), axis=1) for image in halves]
    s.close("gradients of examples", "their sum", total, s.vjp(from_host(J.xp, 0.5 * signs, J.outputs)))
    wide = J.xp.concat([omega, omega], axis=1)
    _refused("gradients of examples", "cotangents that are too wide", lambda: J.map_example_vjp(identity, wide))
    _refused("gradients of examples", "chunk=0", lambda: J.map_example_vjp(identity, omega, chunk=0))


def compact(s: Subject) -> None:
    """`compact`, where there is one, has the outputs of J, and block by block its inner products and kernel."""
    J: Any = s.J
    if "vjp" not in J.modes or getattr(J, "compact", J) is J:
        return
    own = Subject(J.compact, s.rtol)
    require(own.J.param_names == J.param_names, "compact", f"the names of blocks became {own.J.param_names}")
    require(own.J.modes == J.modes, "compact", f"the modes became {sorted(own.J.modes)}")
    require(sum(own.sizes) <= sum(s.sizes), "compact", f"{sum(s.sizes)} parameters became {sum(own.sizes)}")
    s.close("compact", "outputs", to_host(own.J.outputs), to_host(J.outputs))
    omega = s.cotangents(MANY)
    wanted, found = s.vjp(omega), own.vjp(omega)
    for name, image, other in zip(J.param_names, wanted, found, strict=True):
        gram, scale = image @ image.T, float(np.sum(image**2))
        s.close("compact", f"inner products of gradients of {name!r}", other @ other.T, gram, scale=scale)
    if "jvp" in J.modes:
        pairs = [(J, wanted), (own.J, found)]
        full, small = (to_host(j.jvp(_as_tangents(j, images))) for j, images in pairs)
        s.close("compact", "J Jᵀω", small, full, scale=float(np.max(np.abs(full))))


def _as_tangents(J: Linearization, images: Any) -> tuple[Array, ...]:
    return tuple(from_host(J.xp, image, p) for image, p in zip(images, J.params, strict=True))


def kernels(s: Subject) -> None:
    """The exact kernel between examples is J Jᵀ, from VJPs of unit cotangents, put in order by example."""
    J: Any = s.J
    if J.examples is None or "vjp" not in J.modes or getattr(J, "map_example_vjp", None) is None or s.rows > ROWS:
        return
    axis, count = J.examples
    order = np.moveaxis(np.arange(s.rows).reshape(J.outputs.shape), axis, 0).ravel()
    blocks = [block.astype(np.float64)[order] for block in s.vjp(from_host(J.xp, np.eye(s.rows), J.outputs))]
    wanted = [block @ block.T for block in blocks]
    found = [to_host(kernel) for kernel in ntk(J, by="parameter").values()]
    s.close("kernels", "ntk by parameter", found, wanted)
    whole = np.sum(wanted, axis=0).reshape(count, s.rows // count, count, s.rows // count)
    s.close("kernels", 'ntk with outputs="sum"', to_host(ntk(J, outputs="sum")), whole.sum(axis=(1, 3)))


def misfits(s: Subject) -> None:
    """Probes of a wrong shape, and modes that are not there, raise an `NTKError`."""
    v, omega = s.tangents(3), s.cotangents(3)
    if "jvp" in s.J.modes:
        wide = s.J.xp.concat([v[0], v[0]], axis=1)
        _refused("misfits", "jvp of a block that is too wide", lambda: s.J.jvp((wide, *v[1:])))
        _refused("misfits", "jvp with one block too many", lambda: s.J.jvp((*v, v[0])))
        _refused("misfits", "jvp without the axis of probes", lambda: s.J.jvp(tuple(b[0, ...] for b in v)))
        if len(v) > 1:
            _refused("misfits", "jvp with one block too few", lambda: s.J.jvp(v[:-1]))
            _refused("misfits", "jvp of uneven numbers of probes", lambda: s.J.jvp((v[0][:1, ...], *v[1:])))
    else:
        _refused("modes", "jvp, which modes does not list", lambda: s.J.jvp(v), UnsupportedModeError)
    if "vjp" in s.J.modes:
        wide = s.J.xp.concat([omega, omega], axis=1)
        _refused("misfits", "vjp of cotangents that are too wide", lambda: s.J.vjp(wide))
        _refused("misfits", "vjp without the axis of probes", lambda: s.J.vjp(omega[0, ...]))
    else:
        _refused("modes", "vjp, which modes does not list", lambda: s.J.vjp(omega), UnsupportedModeError)


def scale(s: Subject) -> None:
    """`exponent`, unless 0, is near the binary exponent of images of sign probes."""
    if s.J.exponent == 0:
        return
    peaks = []
    if "vjp" in s.J.modes:
        signs = from_host(s.J.xp, np.sign(s._draw(1, s.rows)), s.J.outputs)
        peaks += [float(np.max(np.abs(b))) for b in s.vjp(signs)]
    if "jvp" in s.J.modes:
        signs = tuple(from_host(s.J.xp, np.sign(s._draw(1, n)), p) for n, p in zip(s.sizes, s.J.params, strict=True))
        peaks.append(float(np.max(np.abs(s.jvp(signs)))))
    seen = math.frexp(max(peaks))[1]
    require(
        abs(seen - s.J.exponent) <= 16,
        "exponent",
        f"exponent is {s.J.exponent}, but images of sign probes reach 2**{seen}",
    )


def finite_differences(s: Subject, as_params: AsParams) -> None:
    """J v = (f(θ + h v) - f(θ - h v)) / 2h through `at`, to the accuracy that differences have."""
    J = s.J
    if s.epsilon > 1e-4:  # differences say nothing in half precision
        return
    v = s.tangents(1)
    largest = max(1.0, *(float(np.max(np.abs(to_host(p)))) for p in J.params if math.prod(p.shape)))
    h = s.epsilon ** (1 / 3) * largest / max(float(np.max(np.abs(to_host(b)))) for b in v)
    above, below = (to_host(J.at(as_params(J, _moved(s, v, sign * h))).outputs).ravel() for sign in (1, -1))
    wanted = (above - below) / (2 * h)
    if "jvp" in J.modes:
        found = s.jvp(v)[0]
    else:
        rows = s.vjp(from_host(J.xp, np.eye(s.rows), J.outputs))
        found = sum(r @ to_host(b)[0] for r, b in zip(rows, v, strict=True))
    size = float(np.max(np.abs(to_host(J.outputs)))) / largest
    s.close("finite differences", "J v", found, wanted, rtol=300 * s.epsilon ** (2 / 3), scale=size)


def values(s: Subject, as_params: AsParams | None) -> None:
    """Calls change nothing: not what J is, not the probes, not what a probe gives, and `at` makes another J."""
    J = s.J
    primal = ["outputs", *J.param_names]
    for label, old, array in zip(primal, s.primal, (J.outputs, *J.params), strict=True):
        s.close("values", f"{label} after calls, against before,", to_host(array), old)
    v, omega = s.tangents(3), s.cotangents(3)

    def state() -> list[np.ndarray]:
        found = [to_host(J.outputs), *map(to_host, J.params), to_host(omega), *map(to_host, v)]
        found += [s.jvp(v)] if "jvp" in J.modes else []
        return found + (s.vjp(omega) if "vjp" in J.modes else [])

    what = [*primal, "the cotangents", *(f"the tangent of {n}" for n in J.param_names)]
    before = state()
    if as_params is not None:
        step = tuple(from_host(J.xp, np.ones((1, n)), p) for n, p in zip(s.sizes, J.params, strict=True))
        wanted = _moved(s, step, 0.25)
        other = J.at(as_params(J, wanted))
        require(other is not J, "at", "at() returned the same linearization")
        require(other.param_names == J.param_names, "at", f"at() changed param_names to {other.param_names}")
        for name, param in zip(other.param_names, other.params, strict=True):
            s.close("at", f"parameter {name!r} of at(params)", to_host(param), to_host(wanted[name]))
        moved = Subject(other, s.rtol)
        if "jvp" in J.modes:
            moved.jvp(v)
        if "vjp" in J.modes:
            moved.vjp(omega)
        again = J.at(as_params(J, _moved(s, step, 0.0)))
        s.close("at", "outputs of at(the same parameters)", to_host(again.outputs), before[0])
    for label, old, new in zip([*what, *["an image"] * len(before)], before, state(), strict=False):
        s.close("values", f"{label} after calls, against before,", new, old)


def _moved(s: Subject, direction: tuple[Array, ...], step: float) -> dict[str, Array]:
    """θ + step · direction by name, in the shapes of the parameters."""
    return {
        name: p + step * s.J.xp.reshape(d, tuple(p.shape))
        for name, p, d in zip(s.J.param_names, s.J.params, direction, strict=True)
    }


def _refused(law: str, what: str, call: Callable[[], Any], kind: type[NTKError] = NTKError) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise ConformanceError(
            f"{law}: {what} must raise {kind.__name__}, raised {type(error).__name__}: {error}"
        ) from error
    raise ConformanceError(f"{law}: {what} must raise {kind.__name__}, but went through")
