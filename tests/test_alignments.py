"""The matrix of alignments: each entry by its definition, the whole symmetric and positive semi-definite."""

import json

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.alignments import _positive
from tests import oracle
from tests.test_estimators import SAMPLING

SHAPE = (6, 3)
NAMES = ("a", "b", "c", "d")


def jacobians(count=4, noise=1.0, shape=SHAPE, rank=12, seed=0):
    """Related Jacobians with different numbers of parameters."""
    draw = np.random.default_rng(seed)
    M = int(np.prod(shape))
    base = draw.standard_normal((M, rank)) * 0.8 ** np.arange(rank)
    return [base @ draw.standard_normal((rank, 9 + a)) + noise * draw.standard_normal((M, 9 + a)) for a in range(count)]


def definition(matrices, y=None, H=None):
    kernels = [oracle.kernel(A, H) for A in matrices]
    if y is not None:
        y = y.ravel() if H is None else H @ y.ravel()
        kernels.append(np.outer(y, y))
    return np.array([[oracle.alignment(K, L) for L in kernels] for K in kernels])


def linearized(matrices, convert=np.asarray):
    return [ntkest.from_jacobian(convert(A), SHAPE) for A in matrices]


A, Y = jacobians(), np.random.default_rng(2).standard_normal(SHAPE)


@pytest.mark.parametrize("centered", [False, True, "examples"])
def test_exact_alignments_equal_the_definitions(centered):
    found = ntkest.alignment_matrix(linearized(A), Y, method="exact", centered=centered)
    wanted = definition(A, Y, oracle.centring(SHAPE, centered))
    np.testing.assert_allclose(found.value, wanted, rtol=1e-12)
    np.testing.assert_array_equal(np.diag(found.std_error), 0)
    assert found.names == ("kernel 0", "kernel 1", "kernel 2", "kernel 3", "targets")
    assert found.projected is False


@pytest.mark.parametrize("method", SAMPLING)
def test_matrices_are_symmetric_positive_and_cover_the_truth(method):
    wanted, inside, seeds = definition(A), [], 60
    for seed in range(seeds):
        found = ntkest.alignment_matrix(linearized(A), method=method, passes=480, seed=seed)
        value = found.value
        np.testing.assert_array_equal(value, value.T)
        np.testing.assert_array_equal(np.diag(value), 1)
        assert np.linalg.eigvalsh(value)[0] > -1e-13
        low, high = found.interval()
        assert np.all(low <= high)
        inside.append(((low <= wanted) & (wanted <= high))[np.triu_indices(4, 1)])
    assert 0.88 < np.mean(inside) <= 1.0  # entries of one matrix are correlated


def test_reverse_needs_no_projection_and_shares_its_probes():
    found = ntkest.alignment_matrix(linearized(A), method="reverse", passes=80, seed=3)
    assert found.projected is False
    assert found.passes == found.n_vjp == 80
    assert found.n_jvp == 0
    for a, b in found.pairs:
        alone = ntkest.alignment(*linearized([A[a], A[b]]), method="reverse", passes=40, seed=3)
        assert float(alone) == pytest.approx(found.value[a, b], rel=0.1)  # equal but for the bias correction
        assert found.std_error[a, b] == found.std_error[b, a] == pytest.approx(float(alone.std_error), rel=0.1)


def test_reverse_is_the_gram_matrix_of_probe_grams():
    """The matrix of cosines between off-diagonal Gram entries, from explicit images."""
    from ntkest.probes import cotangent_expander, draw_cotangents

    J = linearized(A)
    omega = cotangent_expander(J[0], 0)(draw_cotangents(J[0], 5, 0, 12))
    vectors = []
    for matrix in A:
        S = (omega @ matrix) @ (omega @ matrix).T
        vectors.append(S[~np.eye(12, dtype=bool)])
    vectors = np.array(vectors) / np.linalg.norm(vectors, axis=1)[:, None]
    found = ntkest.alignment_matrix(J, method="reverse", passes=48, seed=5)
    np.testing.assert_allclose(found.value, vectors @ vectors.T, rtol=1e-12)


def test_a_matrix_out_of_the_cone_is_moved_to_near_the_nearest_inside():
    draw = np.random.default_rng(0)
    for _ in range(20):
        V = draw.standard_normal((6, 3))
        truth = V @ V.T / np.linalg.norm(V, axis=1)[:, None] / np.linalg.norm(V, axis=1)[None, :]
        noise = 0.1 * draw.standard_normal((6, 6))
        noise = (noise + noise.T) * (1 - np.eye(6))
        moved, projected = _positive(np, truth + noise)
        assert projected is True
        assert np.linalg.eigvalsh(moved)[0] > -1e-12
        np.testing.assert_array_equal(np.diag(moved), 1)
        np.testing.assert_allclose(moved, moved.T)
        # The truth is in the convex set, so the nearest matrix is no farther from it than the noise put us
        assert np.linalg.norm(moved - truth) < np.linalg.norm(noise)
    same, projected = _positive(np, truth)
    assert projected is False
    np.testing.assert_array_equal(same, truth)


def test_with_exact_products_of_targets_the_matrix_stays_positive():
    perfect = [np.random.default_rng(0).standard_normal((18, 1)) @ np.ones((1, 2)) for _ in range(2)]
    y = perfect[0][:, 0].reshape(SHAPE)
    moved = []
    for seed in range(20):
        found = ntkest.alignment_matrix(
            linearized([perfect[0], A[0]]), y, method="reverse", passes=41, seed=seed, names=("rank one", "other")
        )
        moved.append(found.projected)
        assert found.names[-1] == "targets"
        assert np.linalg.eigvalsh(found.value)[0] > -1e-12
        assert found.value.max() == 1
    assert any(moved)
    assert "moved" in str(found) or not found.projected


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_alignments_do_not_depend_on_scales_in_float32(scale):
    plain = [a.astype(np.float32) for a in A]
    scaled = [plain[0] * np.float32(scale), plain[1], plain[2] / np.float32(scale), plain[3]]
    found, wanted = (ntkest.alignment_matrix(linearized(m), Y, passes=85, method="reverse") for m in (scaled, plain))
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-4)
    assert found.value.dtype == np.float32


def test_only_the_standard_is_needed_and_arrays_stay_on_their_device():
    device = array_api_strict.Device("device1")
    there = linearized(A, lambda a: array_api_strict.asarray(a, device=device))
    y = array_api_strict.asarray(Y, device=device)
    found = ntkest.alignment_matrix(there, y, method="nystrom++", passes=300)
    wanted = ntkest.alignment_matrix(linearized(A), Y, method="nystrom++", passes=300)
    assert found.value.device == found.std_error.device == device
    home = array_api_strict.Device("CPU_DEVICE")
    np.testing.assert_allclose(np.asarray(found.value.to_device(home)), wanted.value, rtol=1e-9)


def test_results_print_plot_and_become_json():
    pytest.importorskip("matplotlib").use("Agg")
    found = ntkest.alignment_matrix(linearized(A), Y, passes=85, names=NAMES, method="reverse")
    plain = json.loads(json.dumps(found.to_dict()))
    np.testing.assert_allclose(plain["value"], found.value)
    assert plain["names"] == [*NAMES, "targets"]
    assert plain["passes"] == 84
    assert str(found).count("\n") == 6
    axes = found.plot()
    assert [text.get_text() for text in axes.get_yticklabels()] == [*NAMES, "targets"]
    assert axes.texts[0].get_text() == "1.00"


def test_a_tolerance_holds_for_every_pair():
    found = ntkest.alignment_matrix(linearized(A), rtol=0.1, method="reverse", max_passes=100_000)
    assert found.converged
    low, high = found.interval()
    assert np.all((high - low) / 2 <= 0.1 * found.value + 1e-12)


def test_what_makes_no_matrix_is_refused():
    J = linearized(A)
    with pytest.raises(ntkest.NTKError, match="at least two"):
        ntkest.alignment_matrix(J[:1])
    with pytest.raises(ntkest.NTKError, match="at least two"):
        ntkest.alignment_matrix(J[0])
    with pytest.raises(ntkest.NTKError, match="ndarray"):
        ntkest.alignment_matrix([J[0], A[1]])
    with pytest.raises(ntkest.NTKError, match="one name for each of the 4"):
        ntkest.alignment_matrix(J, names=["a"])
    with pytest.raises(ntkest.NTKError, match="no by="):
        ntkest.alignment_matrix(J, by="layer")
    with pytest.raises(ntkest.NTKError, match="different outputs"):
        ntkest.alignment_matrix([J[0], ntkest.from_jacobian(np.ones((4, 3)))])
    with pytest.raises(ntkest.NTKError, match="zero"):
        ntkest.alignment_matrix([*J, ntkest.from_jacobian(np.zeros((18, 3)), SHAPE)], method="reverse", passes=80)
    assert ntkest.alignment_matrix(J[:1], Y, method="exact").value.shape == (2, 2)


@pytest.mark.parametrize("seed", [214, 235])
def test_a_kernel_of_low_rank_beside_one_near_it_is_aligned_where_a_sketch_has_all_of_its_range(seed):
    A = oracle.with_spectrum(oracle.spectra(120)["rank-5"], 120, seed=0, P=240)
    noise = np.random.default_rng(1).standard_normal(A.shape)
    B = A + 0.1 * noise * np.linalg.norm(A) / np.linalg.norm(noise)
    e = ntkest.alignment(ntkest.from_jacobian(A), ntkest.from_jacobian(B), passes=96, seed=seed)
    assert float(e) == pytest.approx(oracle.alignment(A @ A.T, B @ B.T), abs=5 * float(e.std_error))
    assert float(e.std_error) < 1e-6


@pytest.mark.parametrize("method", ["reverse", "forward", "nystrom++", "xtrace"])
def test_no_alignment_is_above_one_and_error_bars_stay(method):
    A = oracle.with_spectrum(oracle.spectra(120)["rank-5"], 120, seed=0, P=240)
    J, nearly = ntkest.from_jacobian(A), ntkest.from_jacobian(A * (1 + 1e-9 * np.random.default_rng(0).random(A.shape)))
    targets = A @ np.random.default_rng(1).standard_normal(240)
    for seed in range(20):
        for e in (
            ntkest.alignment(J, nearly, method=method, passes=48, seed=seed),
            ntkest.alignment(J, targets, method=method, passes=17, seed=seed),
        ):
            assert float(e) <= 1.0
            assert float(e.std_error) > 0.0
