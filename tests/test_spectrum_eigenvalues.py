"""Eigenvalues against explicit kernels: values, residuals, vectors, costs, scales, and everything degenerate."""

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.dense import DenseLinearization
from ntkest.spectrum.krylov import iterate, start_block
from ntkest.spectrum.sides import Operator
from tests import oracle

M = 120
WIDE, TALL = 180, 70  # parameters: more than outputs, and fewer


def spectra(rank):
    """By name, of at most `rank` eigenvalues; with clusters whose gaps Krylov spaces do not see at first."""
    clusters = np.repeat([1.0, 1.0 - 1e-5, 0.5, 1e-3], 9)
    return {**{name: v[:rank] for name, v in oracle.spectra(M).items()}, "equal": np.ones(rank), "clusters": clusters}


def truth(A, k, H=None):
    K = oracle.kernel(A, H)
    return np.sort(np.linalg.eigvalsh(K))[::-1][:k], K


class Counting(DenseLinearization):
    """Counts what is pushed through it."""

    def __init__(self, A, modes=("jvp", "vjp"), shape=None):
        super().__init__(np, {"a": A[:, : A.shape[1] // 3], "b": A[:, A.shape[1] // 3 :]}, shape)
        self.modes, self.n_jvp, self.n_vjp = frozenset(modes), 0, 0

    def jvp(self, tangents):
        assert "jvp" in self.modes
        self.n_jvp += tangents[0].shape[0]
        return super().jvp(tangents)

    def vjp(self, cotangents):
        assert "vjp" in self.modes
        self.n_vjp += cotangents.shape[0]
        return super().vjp(cotangents)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("P", [WIDE, TALL])
@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("name", spectra(TALL))
def test_values_and_residuals_are_right_on_every_spectrum(name, method, P, dtype):
    A = oracle.with_spectrum(spectra(min(M, P))[name], M, P=P).astype(dtype)
    J = Counting(A)
    for k in (1, 7, 20):
        values, K = truth(A, k)
        J.n_jvp = J.n_vjp = 0
        found = ntkest.eigenvalues(J, k, method=method, vectors=True)
        floor = 40 * np.finfo(np.float64).eps * values[0]  # of the reference
        slack = found.residuals + floor
        if name == "clusters":  # the tolerance is wider than the gaps: right up to that
            slack += 1e-4 * values
        assert (np.abs(found.values - values) <= slack).all()
        assert found.converged.all()
        assert (found.passes, found.n_jvp, found.n_vjp) == (J.n_jvp + J.n_vjp, J.n_jvp, J.n_vjp)
        U = found.vectors
        assert U.shape == (k, M)
        assert U.dtype == dtype
        left = np.linalg.norm(U @ K - found.values[:, None] * U, axis=1)
        eps = float(np.finfo(dtype).eps)
        assert (left <= 1.5 * found.residuals + floor + 10 * eps * values[0]).all()  # entries of vectors are rounded
        kept = found.values > 1e-6 * values[0]
        np.testing.assert_allclose((U @ U.T)[kept][:, kept], np.eye(kept.sum()), atol=2e4 * eps)


def test_residuals_are_those_of_a_run_that_was_cut_short():
    A = oracle.with_spectrum(1 / np.arange(1, M + 1), M, P=WIDE)
    values, K = truth(A, 10)
    found = ntkest.eigenvalues(ntkest.from_jacobian(A), 10, method="krylov", max_passes=60, vectors=True)
    assert found.passes <= 60
    assert not found.converged.all()
    assert (np.abs(found.values - values) <= found.residuals).all()
    left = np.linalg.norm(found.vectors @ K - found.values[:, None] * found.vectors, axis=1)
    np.testing.assert_allclose(left, found.residuals, rtol=1e-6)


def test_float32_keeps_small_eigenvalues_that_a_gram_matrix_would_lose():
    """Singular values err by ε·σ₁; with λ = σ², λ_20/λ₁ = 1e-10 is far below ε = 1.2e-7 and still has three digits."""
    spectrum = np.logspace(0, -10, 20)
    A = oracle.with_spectrum(spectrum, M, P=WIDE)
    for method in ("exact", "krylov"):
        found = ntkest.eigenvalues(ntkest.from_jacobian(A.astype(np.float32)), 20, method=method)
        np.testing.assert_allclose(found.values, spectrum, rtol=5e-3)
        assert (np.abs(found.values - spectrum) <= found.residuals).all()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_does_not_matter(dtype, scale):
    """Eigenvalues go with its square, which float32 does not hold: values are float64 on the host."""
    A = oracle.with_spectrum(0.7 ** np.arange(40), M, P=WIDE).astype(dtype)
    for method in ("exact", "krylov"):
        one = ntkest.eigenvalues(ntkest.from_jacobian(A), 5, method=method)
        other = ntkest.eigenvalues(ntkest.from_jacobian(A * dtype(scale)), 5, method=method)
        np.testing.assert_allclose(other.values, one.values * scale**2, rtol=1e-5)
        np.testing.assert_allclose(other.residuals, one.residuals * scale**2, rtol=0.5)


@pytest.mark.parametrize("method", ["exact", "krylov", "auto"])
def test_a_zero_kernel_has_zero_eigenvalues(method):
    found = ntkest.eigenvalues(ntkest.from_jacobian(np.zeros((30, 40))), 4, method=method, vectors=True)
    np.testing.assert_array_equal(found.values, 0)
    assert found.converged.all()
    assert found.vectors.shape == (4, 30)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("P", [WIDE, 6])
def test_all_m_eigenvalues_can_be_asked_for(P, method):
    A = np.random.default_rng(0).standard_normal((20, P))
    found = ntkest.eigenvalues(ntkest.from_jacobian(A), 20, method=method)
    np.testing.assert_allclose(found.values, truth(A, 20)[0], atol=1e-12 * P)


@pytest.mark.parametrize("side", ["outputs", "parameters"])
@pytest.mark.parametrize("P", [WIDE, TALL])
@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_vectors_of_both_sides_are_what_the_maps_take(method, P, side):
    A = oracle.with_spectrum(0.5 ** np.arange(30), M, P=P)
    J = Counting(A)
    found = ntkest.eigenvalues(J, 4, method=method, vectors=side)
    image = np.concatenate(J.vjp(found.vectors), axis=1) if side == "outputs" else J.jvp(found.vectors)
    np.testing.assert_allclose((image**2).sum(axis=1), found.values, rtol=1e-7)
    np.testing.assert_allclose(image @ image.T, np.diag(found.values), atol=1e-7)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("centered", [True, "examples"])
@pytest.mark.parametrize("P", [WIDE, TALL])
def test_centred_kernels(P, centered, method):
    A = oracle.with_spectrum(1 / np.arange(1, 61), M, P=P) + 1.0
    H = oracle.centring((30, 4), centered)
    found = ntkest.eigenvalues(
        ntkest.from_jacobian(A, (30, 4)), 5, centered=centered, method=method, vectors=True, tol=1e-6
    )
    np.testing.assert_allclose(found.values, truth(A, 5, H)[0], rtol=1e-9)
    np.testing.assert_allclose(found.vectors @ H, found.vectors, atol=1e-12)


def test_the_centred_kernel_of_one_output_is_zero():
    found = ntkest.eigenvalues(ntkest.from_jacobian(np.ones((1, 3))), 1, centered=True)
    assert found.values[0] < 1e-30


@pytest.mark.parametrize("modes", [["vjp"], ["jvp"]])
@pytest.mark.parametrize("P", [WIDE, TALL])
def test_one_mode_is_enough_for_all_of_j(P, modes):
    A = oracle.with_spectrum(0.8 ** np.arange(50), M, P=P)
    J = Counting(A, modes)
    found = ntkest.eigenvalues(J, 5)
    assert found.method == "exact"
    assert found.passes == (M if modes == ["vjp"] else P)
    np.testing.assert_allclose(found.values, truth(A, 5)[0], rtol=1e-10)
    with pytest.raises(ntkest.NTKError, match="needs jvp and vjp"):
        ntkest.eigenvalues(J, 5, method="krylov")
    with pytest.raises(ntkest.NTKError, match="max_passes=50"):
        ntkest.eigenvalues(J, 5, max_passes=50)


def test_exact_without_memory_for_the_images_goes_by_rows_of_k_and_says_how_right_that_is():
    A = oracle.with_spectrum(np.logspace(0, -12, 60), M, P=400)
    J = Counting(A.astype(np.float32))
    found = ntkest.eigenvalues(J, 60, method="exact", memory=4 * 4 * 400 * 8)
    assert found.passes == J.n_jvp + J.n_vjp == 2 * M
    assert (np.abs(found.values - truth(A, 60)[0]) <= found.residuals).all()
    assert found.converged[0]
    assert not found.converged[-1]


def test_restarts_in_little_memory_find_the_same():
    A = oracle.with_spectrum(1 / np.arange(1, 301), 300, P=400)
    memory = 2 * 400 * 8 * 50  # fifty vectors of parameters
    J = ntkest.from_jacobian(A)
    found = ntkest.eigenvalues(J, 5, method="krylov", memory=memory, tol=1e-6)
    assert found.converged.all()
    np.testing.assert_allclose(found.values, truth(A, 5)[0], rtol=1e-9)
    sizes = []
    operator = Operator.of(J, memory=memory)
    iterate(operator, 8, lambda run: sizes.append(run.size), 400, 0, lambda *_: None)
    assert max(sizes) <= 75  # half of the memory, in vectors of outputs, and a block
    assert min(np.diff(sizes)) < 0


def test_memory_for_less_than_a_block_is_refused():
    with pytest.raises(ntkest.NTKError, match="give memory=") as error:
        ntkest.eigenvalues(ntkest.from_jacobian(np.ones((300, 500))), 5, method="krylov", memory=10**4)
    enough = int(str(error.value).split("memory=")[2].split()[0])
    assert len(ntkest.eigenvalues(ntkest.from_jacobian(np.ones((300, 500))), 5, method="krylov", memory=enough)) == 5


@pytest.mark.parametrize("P", [WIDE, TALL])
def test_the_basis_is_orthonormal_and_b_has_the_singular_values_of_j_on_it(P):
    A = oracle.with_spectrum(np.logspace(0, -12, 60), M, P=P)
    operator = Operator.of(ntkest.from_jacobian(A))
    run, *_ = iterate(operator, 6, lambda run: run.size >= 36, 10**4, 3, lambda *_: None)
    Q = np.concatenate([q[0] for q in run.left], axis=0)[: run.size]
    np.testing.assert_allclose(Q @ Q.T, np.eye(len(Q)), atol=1e-13)
    scaled = (A if P == WIDE else A.T) / np.sqrt(operator.scale)
    wanted = np.linalg.svd(Q @ scaled, compute_uv=False)
    np.testing.assert_allclose(run.ritz().values, wanted, atol=1e-14 * np.linalg.norm(scaled, 2))


def test_a_flat_spectrum_falls_back_on_all_of_j():
    A = oracle.with_spectrum(np.linspace(1.001, 1, 300), 300)
    found = ntkest.eigenvalues(ntkest.from_jacobian(A), 3, tol=1e-9)
    assert found.method == "exact"
    assert found.passes <= 600
    np.testing.assert_allclose(found.values, truth(A, 3)[0], rtol=1e-10)


def test_auto_takes_all_of_a_small_j_and_the_krylov_space_of_a_large_one():
    small, large = (ntkest.from_jacobian(oracle.with_spectrum(0.7 ** np.arange(30), n)) for n in (40, 400))
    assert ntkest.eigenvalues(small, 4).method == "exact"
    found = ntkest.eigenvalues(large, 4)
    assert found.method == "krylov"
    assert found.passes < 100


def test_seeds_repeat_and_differ():
    J = ntkest.from_jacobian(oracle.with_spectrum(1 / np.arange(1, 201), 200))
    first, same, other = (ntkest.eigenvalues(J, 3, method="krylov", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.values, same.values)
    assert not np.array_equal(first.values, other.values)
    np.testing.assert_allclose(first.values, other.values, rtol=1e-6)


def test_array_api_strict_agrees():
    A = oracle.with_spectrum(1 / np.arange(1, 101), 100, P=150)
    blocks = {"a": A[:, :40], "b": A[:, 40:]}
    one = ntkest.eigenvalues(ntkest.from_jacobian(blocks), 6, method="krylov", vectors=True)
    strict = ntkest.from_jacobian({name: array_api_strict.asarray(b) for name, b in blocks.items()})
    other = ntkest.eigenvalues(strict, 6, method="krylov", vectors=True)
    np.testing.assert_allclose(other.values, one.values, rtol=1e-12)
    assert other.passes == one.passes
    assert other.vectors.__array_namespace__() is array_api_strict


def test_an_interrupt_keeps_finished_work():
    J = Counting(oracle.with_spectrum(1 / np.arange(1, M + 1), M, P=WIDE))
    push = J.vjp

    def once(cotangents):
        if J.n_vjp > 30:
            raise KeyboardInterrupt
        return push(cotangents)

    J.vjp = once
    found = ntkest.eigenvalues(J, 10, method="krylov")
    assert found.about["interrupted"]
    assert not found.converged.all()
    assert (found.values > 0).all()


def test_progress_is_told_of_passes():
    seen = []
    J = ntkest.from_jacobian(oracle.with_spectrum(1 / np.arange(1, 201), 200))
    found = ntkest.eigenvalues(J, 5, method="krylov", progress=lambda spent, expected: seen.append((spent, expected)))
    assert seen[-1] == (found.passes, found.passes)
    assert [spent for spent, _ in seen] == sorted(spent for spent, _ in seen)


def test_the_start_is_orthonormal_and_centred():
    operator = Operator.of(ntkest.from_jacobian(np.ones((12, 30)), (4, 3)), centered="examples")
    (rows,) = start_block(operator, 5, 0)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-14)
    np.testing.assert_allclose(rows.reshape(5, 4, 3).sum(axis=1), 0, atol=1e-14)


def test_a_result_is_a_sequence_of_numbers_and_goes_to_json():
    import json

    found = ntkest.eigenvalues(ntkest.from_jacobian(np.diag([3.0, 2.0, 1.0])), 2)
    assert list(found) == pytest.approx([9, 4])
    assert len(found) == 2
    assert found[0] == pytest.approx(9)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["values"] == list(found)
    assert plain["passes"] == 3
    assert "2 of 2 converged" in str(found)


def small():
    return ntkest.from_jacobian(np.ones((4, 5)))


BAD = {
    "k zero": (ValueError, "k takes", lambda: ntkest.eigenvalues(small(), 0)),
    "k of a float": (TypeError, "k takes", lambda: ntkest.eigenvalues(small(), 2.0)),
    "k above M": (ValueError, "only 4", lambda: ntkest.eigenvalues(small(), 5)),
    "tol zero": (ValueError, "tol=", lambda: ntkest.eigenvalues(small(), 1, tol=0)),
    "tol of text": (TypeError, "tol=", lambda: ntkest.eigenvalues(small(), 1, tol="small")),
    "unknown method": (ValueError, "one of auto", lambda: ntkest.eigenvalues(small(), 1, method="lanczos")),
    "vectors of a layer": (ValueError, "vectors=", lambda: ntkest.eigenvalues(small(), 1, vectors="layer")),
    "max_passes zero": (ValueError, "max_passes=", lambda: ntkest.eigenvalues(small(), 1, max_passes=0)),
    "max_passes too few": (
        ValueError,
        "max_passes=3 is too few",
        lambda: ntkest.eigenvalues(small(), 1, max_passes=3, method="krylov"),
    ),
    "seed negative": (ValueError, "seed=", lambda: ntkest.eigenvalues(small(), 1, seed=-1)),
    "not a linearization": (TypeError, "linearization is needed", lambda: ntkest.eigenvalues(np.ones((2, 2)), 1)),
    "progress of text": (TypeError, "progress=", lambda: ntkest.eigenvalues(small(), 1, method="krylov", progress=1)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_what_to_do(case):
    kind, message, call = BAD[case]
    with pytest.raises(ntkest.NTKError, match=message) as error:
        call()
    assert isinstance(error.value, kind)
