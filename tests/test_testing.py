"""The conformance kit passes for adapters that are right, and fails, by the right law, for each that is broken."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.linearization import UnsupportedModeError
from ntkest.testing import (
    ConformanceError,
    cases,
    check_backend,
    check_linearization,
    check_value_and_gradient,
    laws,
    to_host,
)
from ntkest.testing.subject import Subject


class Formula:
    """A right adapter without a framework: the closed form, with its function beside it."""

    map_example_vjp = None

    def __init__(self, case):
        self._case, self._J = case, dense(case)
        dtype = next(iter(case.params.values())).dtype
        self.outputs = np.asarray(case.outputs().astype(dtype))
        self.params = tuple(array.copy() for array in case.params.values())
        self.examples = None if case.axis is None else (case.axis, self.outputs.shape[case.axis])

    def __getattr__(self, name):
        return getattr(self._J, name)

    def at(self, params):
        return Formula(replace(self._case, params={name: params[name] for name in self._case.params}))


def dense(case, asarray=np.asarray):
    dtype = next(iter(case.params.values())).dtype
    blocks = {name: asarray(block.astype(dtype)) for name, block in case.jacobian().items()}
    return ntkest.from_jacobian(blocks, case.outputs().shape if case.axis == 0 else None)


def strict(device):
    return lambda case: dense(case, lambda a: array_api_strict.asarray(a, device=array_api_strict.Device(device)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_closed_form_with_its_function_conforms(dtype):
    check_backend(Formula, dtype=dtype)


@pytest.mark.parametrize("make", [dense, strict("CPU_DEVICE"), strict("device1")], ids=["numpy", "strict", "device1"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_jacobians_conform(make, dtype):
    check_backend(make, dtype=dtype, primal=False)


@pytest.mark.parametrize("case", cases("float64"), ids=lambda case: case.name)
def test_closed_forms_equal_differences_of_the_function(case):
    for name, block in case.jacobian().items():
        array, columns = case.params[name], []
        for index in np.ndindex(array.shape):
            kept, values = array[index], []
            for step in (1e-5, -1e-5):
                array[index] = kept + step
                values.append(case.outputs().ravel())
            array[index] = kept
            columns.append((values[0] - values[1]) / 2e-5)
        np.testing.assert_allclose(block, np.stack(columns, axis=1), atol=1e-8)


class Wrapped:
    """A right linearization, to be broken in one place."""

    map_example_vjp = None

    def __init__(self, J):
        self._J = J

    def __getattr__(self, name):
        return getattr(self._J, name)

    def at(self, params):
        return type(self)(self._J.at(params))

    def map_jvp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_jvp(reduce, probes, expand=expand, chunk=chunk)

    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_vjp(reduce, probes, expand=expand, chunk=chunk)


class WrongAdjoint(Wrapped):
    def vjp(self, cotangents):
        return tuple(1.01 * b for b in self._J.vjp(cotangents))


class WrongScaling(Wrapped):
    def jvp(self, tangents):
        return 1.01 * self._J.jvp(tangents)

    def vjp(self, cotangents):
        return tuple(1.01 * b for b in self._J.vjp(cotangents))

    def map_jvp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_jvp(lambda image: reduce(1.01 * image), probes, expand=expand, chunk=chunk)

    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_vjp(
            lambda blocks: reduce(tuple(1.01 * b for b in blocks)), probes, expand=expand, chunk=chunk
        )


class LostRemainder(Wrapped):
    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        whole = len(probes) // chunk * chunk if isinstance(chunk, int) and 0 < chunk <= len(probes) else len(probes)
        return self._J.map_vjp(reduce, probes[:whole], expand=expand, chunk=chunk)


class RepeatedRemainder(Wrapped):
    """Pads the last chunk with the last probes of the chunk before, and forgets to cut."""

    def map_jvp(self, reduce, probes, *, expand=None, chunk=None):
        if chunk == 3:
            probes = tuple(np.concatenate([p[:6], p[4:5]]) for p in probes)
        return self._J.map_jvp(reduce, probes, expand=expand, chunk=chunk)


class ReversesSingles(Wrapped):
    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_vjp(reduce, probes[::-1] if chunk == 1 else probes, expand=expand, chunk=chunk)


class ForgetsExpand(Wrapped):
    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_vjp(reduce, probes.astype(self.outputs.dtype), chunk=chunk)


class AcceptsAnyChunk(Wrapped):
    def map_vjp(self, reduce, probes, *, expand=None, chunk=None):
        return self._J.map_vjp(reduce, probes, expand=expand, chunk=max(1, int(chunk)) if chunk is not None else None)


class NoneForIgnored(Wrapped):
    def vjp(self, cotangents):
        return tuple(b if np.any(b) else None for b in self._J.vjp(cotangents))


class DropsIgnored(Wrapped):
    def vjp(self, cotangents):
        return tuple(b for b in self._J.vjp(cotangents) if np.any(b))


class MutatesParams(Wrapped):
    def jvp(self, tangents):
        self.params[0][...] += 1e-3
        return self._J.jvp(tangents)


class MutatesProbes(Wrapped):
    def vjp(self, cotangents):
        images = self._J.vjp(cotangents)
        cotangents *= 2
        return images


class MovesItself(Wrapped):
    """`at` changes the old linearization too."""

    def at(self, params):
        self._J = self._J.at(params)
        return type(self)(self._J)


class Drifts(Wrapped):
    """The same probe twice gives two images."""

    def vjp(self, cotangents):
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return tuple(b * (1 + 1e-3 * self.calls) for b in self._J.vjp(cotangents))


class Nonlinear(Wrapped):
    def jvp(self, tangents):
        return np.tanh(self._J.jvp(tangents))


class Widened(Wrapped):
    def jvp(self, tangents):
        return self._J.jvp(tangents).astype(np.float64)


class Unbatched(Wrapped):
    def jvp(self, tangents):
        return self._J.jvp(tuple(b[:1] for b in tangents))


class Promises(Wrapped):
    """Says that it has a mode which raises."""

    def jvp(self, tangents):
        raise UnsupportedModeError("no forward mode")


class Lenient(Wrapped):
    def jvp(self, tangents):
        cut = tuple(b.reshape(-1, b.shape[-1])[:, : p.size] for b, p in zip(tangents, self.params, strict=False))
        return self._J.jvp(cut)


class Independent(Wrapped):
    """Sees examples where they interact."""

    @property
    def examples(self):
        return (0, self.outputs.shape[0]) if self.outputs.ndim else None


class Shuffled(Wrapped):
    """Hands the gradient of each example out under the number of the next."""

    example_size = 10**6

    def map_example_vjp(self, reduce, probes, *, expand=None, chunk=None):
        J = dense(self._J._case)
        return tuple(
            np.roll(block, 1, axis=1) for block in J.map_example_vjp(reduce, probes, expand=expand, chunk=chunk)
        )


class Listed(Wrapped):
    @property
    def param_names(self):
        return tuple(f"p{i}" for i, _ in enumerate(self.params))


class FarOff(Wrapped):
    exponent = 60


BROKEN = {
    WrongAdjoint: "adjoint identity",
    WrongScaling: r"finite differences.*J v is off by",
    LostRemainder: r"chunks.*map_vjp with chunk=3 has shape \(6, 3\), not \(7, 3\)",
    RepeatedRemainder: r"chunks.*map_jvp with chunk=3 is off by",
    ReversesSingles: r"\[two layers\] chunks: map_vjp with chunk=1 is off by",
    ForgetsExpand: r"chunks.*map_vjp with chunk=3 and expand=",
    AcceptsAnyChunk: r"chunks.*chunk=0 must raise",
    NoneForIgnored: r"\[ignored parameter\] zero blocks.*'ignored' returned None",
    DropsIgnored: r"\[ignored parameter\] shapes.*3 blocks",
    MutatesParams: "values: bias after calls",
    MutatesProbes: "images: vjp of one probe after the other",
    MovesItself: "finite differences: J v is off",
    Drifts: "images: vjp of one probe after the other",
    Nonlinear: "adjoint identity: .* is off by",
    Widened: "dtypes: jvp must be float32, got float64",
    Unbatched: r"shapes: jvp must have shape \(7, 15\)",
    Promises: r"images: a call raised UnsupportedModeError",
    Lenient: "misfits: jvp of a block that is too wide",
    Independent: r"\[trajectories\] examples: examples=\(0, 6\), but the axis of examples is 1",
    Shuffled: r"gradients of examples: map_example_vjp with chunk=None, block 'bias' is off by",
    Listed: r"names: param_names must be \['bias', 'weight'\]",
    FarOff: r"exponent is 60, but images of sign probes reach 2\*\*",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.__name__)
def test_kit_fails_for_a_broken_adapter_by_the_broken_law(broken):
    with pytest.raises(ConformanceError, match=BROKEN[broken]) as caught:
        check_backend(lambda case: broken(Formula(case)))
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    ("broken", "law", "message"),
    [
        (Nonlinear, laws.linearity, "linearity: jvp of a combination"),
        (Drifts, lambda s: laws.values(s, None), "values: an image"),
        (MutatesProbes, lambda s: laws.values(s, None), "values: the cotangents"),
        (MovesItself, lambda s: laws.values(s, lambda J, arrays: arrays), "at: |values: outputs"),
    ],
)
def test_laws_hold_alone_what_others_find_first(broken, law, message):
    with pytest.raises(ConformanceError, match=message):
        law(Subject(broken(Formula(cases()[0])), rtol=1e-5))


def test_wrong_scaling_is_found_without_differences_by_the_closed_form():
    with pytest.raises(ConformanceError, match=r"\[linear\] closed form: vjp, block 'bias' is off by"):
        check_backend(lambda case: WrongScaling(dense(case)), primal=False)


def test_an_adapter_with_one_mode_conforms():
    class ReverseOnly(Wrapped):
        modes = frozenset({"vjp"})

        def jvp(self, tangents):
            raise UnsupportedModeError("no forward mode")

    check_backend(lambda case: ReverseOnly(Formula(case)))

    class ReverseOnlySilent(ReverseOnly):
        def jvp(self, tangents):
            return self._J.jvp(tangents)

    with pytest.raises(ConformanceError, match="jvp, which modes does not list must raise UnsupportedModeError"):
        check_backend(lambda case: ReverseOnlySilent(Formula(case)))


def test_a_failing_factory_names_the_case():
    with pytest.raises(ConformanceError, match=r"\[linear\] make: raised KeyError"):
        check_backend(lambda case: case.params["weights"])


def test_check_linearization_takes_any_linearization():
    case = cases("float64")[1]
    J = Formula(case)
    check_linearization(J, as_params=lambda J, arrays: arrays)
    check_linearization(ntkest.from_jacobian(np.random.default_rng(0).standard_normal((6, 10)), (3, 2)))
    with pytest.raises(ConformanceError, match="finite differences"):
        check_linearization(WrongScaling(J), as_params=lambda J, arrays: arrays)
    with pytest.raises(ConformanceError, match="protocol"):
        check_linearization(np.eye(3))


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
def test_to_host_brings_any_device_to_numpy(device):
    array = array_api_strict.asarray(
        [1.5, -2.0], dtype=array_api_strict.float32, device=array_api_strict.Device(device)
    )
    found = to_host(array)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, [1.5, -2.0])


class Differences:
    """A right differentiator without a framework: central differences, entry by entry."""

    def value_and_gradient(self, function):
        def evaluated(arrays, *rest):
            gradients = tuple(np.zeros_like(a) for a in arrays)
            for i, array in enumerate(arrays):
                for index in np.ndindex(array.shape):
                    ends = []
                    for step in (1e-5, -1e-5):
                        moved = array.copy()
                        moved[index] += step
                        ends.append(function((*arrays[:i], moved, *arrays[i + 1 :]), *rest))
                    gradients[i][index] = (ends[0] - ends[1]) / 2e-5
            return function(arrays, *rest), gradients

        return evaluated


class WrongGradient(Differences):
    def value_and_gradient(self, function):
        right = super().value_and_gradient(function)

        def evaluated(arrays, *rest):
            value, gradients = right(arrays, *rest)
            return value, (1.01 * gradients[0], *gradients[1:])

        return evaluated


class WrongValue(Differences):
    def value_and_gradient(self, function):
        return super().value_and_gradient(lambda arrays, *rest: function(arrays, *rest) + 1.0)


class LostZeros(Differences):
    def value_and_gradient(self, function):
        right = super().value_and_gradient(function)

        def evaluated(arrays, *rest):
            value, gradients = right(arrays, *rest)
            return value, gradients[:1]

        return evaluated


def moved(case, inputs):
    return dense(replace(case, inputs=np.asarray(inputs)))


def test_right_gradients_through_kernels_conform():
    check_value_and_gradient(Differences(), moved, "float64")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (WrongGradient, "central differences give"),
        (WrongValue, "where the function itself gives"),
        (LostZeros, "a tuple of arrays"),
    ],
)
def test_wrong_gradients_through_kernels_are_found(wrong, match):
    with pytest.raises(ConformanceError, match=match):
        check_value_and_gradient(wrong(), moved, "float64")


def test_what_a_differentiator_raises_is_reported():
    class Broken:
        def value_and_gradient(self, function):
            raise KeyError("no tape")

    with pytest.raises(ConformanceError, match=r"linear.*raised KeyError"):
        check_value_and_gradient(Broken(), moved, "float64")
