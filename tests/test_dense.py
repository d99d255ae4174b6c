"""`from_jacobian`: an explicit Jacobian in any Array API namespace, or a SciPy LinearOperator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import array_api_compat
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import ntkest
from ntkest.linearization import (
    DeviceMismatchError,
    InconsistentDerivativesError,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonDifferentiableError,
    NonFiniteError,
    NTKError,
    ShapeError,
)

M, K = 6, 5
SIZES = {"hidden.weight": 7, "hidden.bias": 1, "head": 3}


@dataclass(frozen=True)
class Space:
    """A namespace and a device, with the two ways in and out."""

    xp: Any
    device: Any = None

    def array(self, values: Any, dtype: str = "float64") -> Any:
        return self.xp.asarray(np.asarray(values), dtype=getattr(self.xp, dtype), device=self.device)

    @staticmethod
    def numpy(array: Any) -> np.ndarray:
        if array_api_compat.is_array_api_strict_namespace(array_api_compat.array_namespace(array)):
            import array_api_strict

            array = array.to_device(array_api_strict.Device("CPU_DEVICE"))
        return np.asarray(array)


SPACES = ["numpy", "array_api_strict", "array_api_strict:device1", "torch"]  # jax lacks float64 here: tests/jax


@pytest.fixture(params=[name for name in SPACES if find_spec(name.partition(":")[0])])
def space(request: pytest.FixtureRequest) -> Space:
    name, _, device = request.param.partition(":")
    if device and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("array_api_strict moves arrays between devices with NumPy 2 only")
    module = import_module(name)
    return Space(array_api_compat.array_namespace(module.ones(1)), module.Device(device) if device else None)


def jacobian(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal((M, size)) for name, size in SIZES.items()}


def tangents(seed: int = 1) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.standard_normal((K, size)) for size in SIZES.values()]


def cotangents(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((K, M))


def naive_jvp(A: dict[str, np.ndarray], v: list[np.ndarray]) -> np.ndarray:
    result = np.zeros((K, M))
    for block, part in zip(A.values(), v, strict=True):
        for k in range(K):
            for m in range(M):
                result[k, m] += sum(block[m, p] * part[k, p] for p in range(block.shape[1]))
    return result


def naive_vjp(A: dict[str, np.ndarray], omega: np.ndarray) -> list[np.ndarray]:
    return [np.asarray([[sum(w * block[:, p]) for p in range(block.shape[1])] for w in omega]) for block in A.values()]


# The two maps ---------------------------------------------------------------------------------------------------------


def test_jvp_and_vjp_equal_explicit_sums_and_stay_in_their_namespace_and_device(space: Space) -> None:
    A, v, omega = jacobian(), tangents(), cotangents()
    J = ntkest.from_jacobian({name: space.array(block) for name, block in A.items()})

    image = J.jvp(tuple(map(space.array, v)))
    pulled = J.vjp(space.array(omega))

    np.testing.assert_allclose(space.numpy(image), naive_jvp(A, v), rtol=1e-12, atol=1e-12)
    for found, wanted in zip(pulled, naive_vjp(A, omega), strict=True):
        np.testing.assert_allclose(space.numpy(found), wanted, rtol=1e-12, atol=1e-12)
    expected = array_api_compat.device(space.array(0.0))
    for array in (image, *pulled, J.outputs, *J.params):
        assert array_api_compat.array_namespace(array) is J.xp is space.xp
        assert array_api_compat.device(array) == expected
        assert array.dtype == space.xp.float64


def test_the_blocks_and_the_primal_are_described_as_given(space: Space) -> None:
    J = ntkest.from_jacobian({n: space.array(b) for n, b in jacobian().items()}, output_shape=(2, 3))
    assert isinstance(J, Linearization)
    assert J.param_names == tuple(SIZES)
    assert [p.shape for p in J.params] == [(size,) for size in SIZES.values()]
    assert tuple(J.outputs.shape) == (2, 3)
    assert J.examples == (0, 2)
    assert J.modes == {"jvp", "vjp"}
    assert J.passes_per_jvp == 1
    assert J.at(J.params) is J


def test_a_single_array_is_one_block_and_its_rows_are_not_taken_for_examples(space: Space) -> None:
    J = ntkest.from_jacobian(space.array(jacobian()["head"]))
    assert J.param_names == ("jacobian",)
    assert tuple(J.outputs.shape) == (M,)
    assert J.examples is None


def test_float32_stays_float32(space: Space) -> None:
    A = jacobian()["head"]
    J = ntkest.from_jacobian(space.array(A, "float32"))
    omega = cotangents()
    (pulled,) = J.vjp(space.array(omega, "float32"))
    assert pulled.dtype == space.xp.float32
    np.testing.assert_allclose(space.numpy(pulled), omega @ A, rtol=1e-5, atol=1e-5)


def test_blocks_of_two_precisions_keep_their_own_and_meet_in_the_wider(space: Space) -> None:
    A, v, omega = jacobian(), tangents(), cotangents()
    dtypes = ["float32", "float64", "float32"]
    blocks = {n: space.array(b, d) for (n, b), d in zip(A.items(), dtypes, strict=True)}
    J = ntkest.from_jacobian(blocks)
    image = J.jvp(tuple(space.array(part, d) for part, d in zip(v, dtypes, strict=True)))
    pulled = J.vjp(space.array(omega))
    assert image.dtype == J.outputs.dtype == space.xp.float64
    assert [p.dtype for p in pulled] == [p.dtype for p in J.params] == [b.dtype for b in blocks.values()]
    np.testing.assert_allclose(space.numpy(image), naive_jvp(A, v), rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), count=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_the_two_maps_are_adjoint(rows: int, columns: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    J = ntkest.from_jacobian(draw.standard_normal((rows, columns)))
    v, omega = draw.standard_normal((count, columns)), draw.standard_normal((count, rows))
    there = np.sum(J.jvp((v,)) * omega, axis=1)
    back = np.sum(J.vjp(omega)[0] * v, axis=1)
    np.testing.assert_allclose(there, back, rtol=1e-10, atol=1e-10)


# Chunks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 2, K, K + 1])
def test_chunks_change_neither_the_maps_nor_the_order_of_probes(space: Space, chunk: int | None) -> None:
    A, v, omega = jacobian(), tangents(), cotangents()
    J = ntkest.from_jacobian({n: space.array(b) for n, b in A.items()})
    sizes: list[int] = []

    def squared_norms(images: Any) -> Any:
        blocks = images if isinstance(images, tuple) else (images,)
        sizes.append(blocks[0].shape[0])
        return tuple(space.xp.sum(block * block, axis=1) for block in blocks)

    (forward,) = J.map_jvp(squared_norms, tuple(map(space.array, v)), chunk=chunk)
    full = K if chunk is None else min(chunk, K)
    assert sizes == [min(full, K - start) for start in range(0, K, full)]
    reverse = J.map_vjp(squared_norms, space.array(omega), chunk=chunk)

    np.testing.assert_allclose(space.numpy(forward), np.sum(naive_jvp(A, v) ** 2, axis=1), rtol=1e-12)
    for found, wanted in zip(reverse, naive_vjp(A, omega), strict=True):
        np.testing.assert_allclose(space.numpy(found), np.sum(wanted**2, axis=1), rtol=1e-12)


def test_expand_unpacks_probes_chunk_by_chunk(space: Space) -> None:
    A, omega = jacobian()["head"], np.where(cotangents() > 0, 1.0, -1.0)
    J = ntkest.from_jacobian(space.array(A))
    packed = (space.array(omega > 0, "uint8"), space.array(np.arange(1.0, K + 1)))

    def unpack(part: Any) -> Any:
        bits, scale = part
        return (2.0 * space.xp.astype(bits, space.xp.float64) - 1.0) * scale[:, None]

    found = J.map_vjp(lambda blocks: blocks[0], packed, expand=unpack, chunk=2)
    wanted = (omega * np.arange(1.0, K + 1)[:, None]) @ A
    np.testing.assert_allclose(space.numpy(found), wanted, rtol=1e-12, atol=1e-12)


def test_the_default_chunk_bounds_the_numbers_in_flight() -> None:
    narrow = ntkest.from_jacobian(np.ones((4, 4)))
    wide = ntkest.from_jacobian(np.ones((1, 2**21), dtype=np.float32))
    assert narrow.chunk_size("vjp", 100) == 100
    assert wide.chunk_size("vjp", 100) == 16
    assert narrow.chunk_size("jvp", 3) == 3


@pytest.mark.parametrize(
    ("chunk", "error"), [(0, InvalidValueError), (True, InvalidTypeError), (2.0, InvalidTypeError)]
)
def test_a_bad_chunk_is_refused(chunk: Any, error: type[NTKError]) -> None:
    J = ntkest.from_jacobian(np.eye(2))
    with pytest.raises(error, match="chunk= takes a positive integer"):
        J.map_vjp(lambda blocks: blocks, np.eye(2), chunk=chunk)


# Scale ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("wrap", [np.asarray, aslinearoperator], ids=["array", "operator"])
def test_the_exponent_brings_images_of_signs_near_one_at_any_scale(wrap: Any, scale: float) -> None:
    draw = np.random.default_rng(3)
    A = (draw.standard_normal((40, 60)) * scale).astype(np.float32)
    J = ntkest.from_jacobian(wrap(A))
    signs = draw.choice(np.asarray([-1.0, 1.0], dtype=np.float32), (1, 40))
    image = J.vjp(np.ldexp(signs, -J.exponent))[0]
    typical = math.sqrt(float(np.mean(image.astype(np.float64) ** 2)))
    assert 2**-6 < typical < 2


def test_a_zero_jacobian_is_allowed_and_has_exponent_zero() -> None:
    for zero in (np.zeros((2, 3)), aslinearoperator(np.zeros((2, 3)))):
        assert ntkest.from_jacobian(zero).exponent == 0


# SciPy operators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_operator_gives_what_its_matrix_gives(dtype: str) -> None:
    entries = np.random.default_rng(4).standard_normal((M, 9)).astype(dtype)
    A = scipy.sparse.csr_array(np.where(entries > 0, entries, 0))
    J = ntkest.from_jacobian(aslinearoperator(A), output_shape=(3, 2))
    dense = ntkest.from_jacobian(A.toarray(), output_shape=(3, 2))
    draw = np.random.default_rng(5)
    v, omega = draw.standard_normal((K, 9)).astype(dtype), draw.standard_normal((K, M)).astype(dtype)

    assert isinstance(J, Linearization)
    assert (J.examples, J.outputs.shape, J.modes) == ((0, 3), (3, 2), {"jvp", "vjp"})
    image, (pulled,) = J.jvp((v,)), J.vjp(omega)
    assert image.dtype == pulled.dtype == np.dtype(dtype)
    tolerance = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(image, dense.jvp((v,)), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(pulled, dense.vjp(omega)[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(J.map_vjp(lambda b: b[0], omega, chunk=2), pulled, rtol=tolerance, atol=tolerance)


def test_an_operator_without_rmatvec_has_forward_mode_only() -> None:
    A = jacobian()["head"]
    J = ntkest.from_jacobian(LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype))
    assert J.modes == {"jvp"}
    np.testing.assert_allclose(J.jvp((np.eye(3),)), A.T, rtol=1e-12)


def test_an_operator_with_a_wrong_adjoint_is_refused() -> None:
    A = jacobian()["head"]
    wrong = LinearOperator(A.shape, matvec=lambda x: A @ x, rmatvec=lambda y: 1.01 * A.T @ y, dtype=A.dtype)
    with pytest.raises(InconsistentDerivativesError, match="disagree"):
        ntkest.from_jacobian(wrong)


# Errors ---------------------------------------------------------------------------------------------------------------

NAN = np.asarray([[1.0, math.nan], [0.0, 1.0]])
BAD_JACOBIANS: dict[str, tuple[Any, Any, type[NTKError], str]] = {
    "a list": ([[1.0]], None, InvalidTypeError, "takes arrays or a LinearOperator, not list"),
    "a sparse array": (scipy.sparse.csr_array(np.eye(2)), None, InvalidTypeError, "takes arrays or a LinearOperator"),
    "one axis": (np.ones(3), None, ShapeError, r"shape \(M, P\).*\(3,\)"),
    "three axes": (np.ones((2, 2, 2)), None, ShapeError, r"shape \(M, P\)"),
    "no rows": (np.ones((0, 2)), None, ShapeError, "M, P > 0"),
    "no blocks": ({}, None, InvalidValueError, "at least one block"),
    "uneven blocks": ({"a": np.eye(2), "b": np.eye(3)}, None, ShapeError, "'b' has 3, not 2"),
    "integers": (np.eye(2, dtype=np.int64), None, NonDifferentiableError, "real floating point.*int64"),
    "complex numbers": (np.eye(2, dtype=np.complex128), None, NonDifferentiableError, "real floating point"),
    "NaN": (NAN, None, NonFiniteError, "NaN or infinity"),
    "NaN in an operator": (aslinearoperator(NAN), None, NonFiniteError, "NaN or infinite"),
    "a complex operator": (aslinearoperator(np.eye(2) * 1j), None, NonDifferentiableError, "the operator is complex"),
    "an empty operator": (LinearOperator((0, 2), matvec=lambda x: x, dtype=float), None, ShapeError, "M, P > 0"),
    "outputs that do not fit": (np.eye(6), (4, 2), ShapeError, r"\(4, 2\) has 8 entries.*6 rows"),
    "outputs of negative size": (np.eye(6), (-1, 6), InvalidValueError, "positive integers"),
    "outputs given as a number": (np.eye(6), 6, InvalidValueError, "a tuple of positive integers"),
}


@pytest.mark.parametrize("case", BAD_JACOBIANS)
def test_a_bad_jacobian_is_refused_with_what_was_given_and_what_was_wanted(case: str) -> None:
    A, output_shape, error, message = BAD_JACOBIANS[case]
    with pytest.raises(error, match=message):
        ntkest.from_jacobian(A, output_shape)


def test_blocks_of_two_namespaces_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(InvalidTypeError, match="share one array namespace"):
        ntkest.from_jacobian({"a": np.eye(2), "b": strict.eye(2)})


def test_blocks_on_two_devices_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    elsewhere = strict.eye(2, device=strict.Device("device1"))
    with pytest.raises(DeviceMismatchError, match="'b' is on"):
        ntkest.from_jacobian({"a": strict.eye(2), "b": elsewhere})


@pytest.mark.parametrize("wrap", [np.asarray, aslinearoperator], ids=["array", "operator"])
def test_probes_that_do_not_fit_are_refused(wrap: Any) -> None:
    J = ntkest.from_jacobian(wrap(np.ones((2, 3))))
    with pytest.raises(InvalidValueError, match=r"cotangents must have shape \(k, 2\), got \(1, 3\)"):
        J.vjp(np.ones((1, 3)))
    with pytest.raises(InvalidValueError, match=r"must have shape \(k, 3\), got \(3,\)"):
        J.jvp((np.ones(3),))
    with pytest.raises(ShapeError, match="a tuple of 1 blocks, one a parameter; got ndarray"):
        J.jvp(np.ones((1, 3)))
    with pytest.raises(ShapeError, match="got 2"):
        J.jvp((np.ones((1, 3)), np.ones((1, 3))))
