"""What theory says of compressed tangent features, for random spectra, shapes and scales."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkest.distilled.compression import Compression
from ntkest.distilled.decomposition import decompose
from ntkest.distilled.kernels import class_kernels, mean_kernel
from ntkest.distilled.local_global import compress, global_eigenvectors, local_global
from ntkest.distilled.prediction import class_ridge
from ntkest.distilled.truncation import data_redundancy

FEW = settings(deadline=None, max_examples=20)
PROBLEMS = {
    "seed": st.integers(0, 2**16),
    "m": st.integers(4, 14),
    "outputs": st.integers(1, 3),
    "k": st.integers(3, 20),
    "decay": st.floats(0, 1.5),
    "decade": st.integers(-10, 10),
}


def problem(seed, m, outputs, k, decay, decade=0):
    """Features with a decaying spectrum, and targets."""
    draw = np.random.default_rng(seed)
    features = draw.standard_normal((m, outputs, k)) * np.arange(1, k + 1) ** -decay
    return features * 10.0**decade, draw.standard_normal((m, outputs)), draw


@FEW
@given(**PROBLEMS, size=st.integers(1, 6))
def test_no_span_loses_less_than_that_of_the_first_eigenvectors(size, **kwargs):
    """E‖(I - Π)φ‖² = Σ_{i>m} λ_i + (Σ_{i≤m} λ_i - tr ΠΣ), whose bracket is never negative, and 0 for eigenvectors."""
    features, targets, _ = problem(**kwargs | {"outputs": 1})
    rows = features[:, 0]
    second = rows.T @ rows / len(rows)
    values = data_redundancy(features).pooled_spectrum / len(rows)
    scale = 1e-10 * values.sum()
    for make in (global_eigenvectors, lambda f, s: local_global(f, s, coverage_threshold=0, clusters=2)):
        compression = make(features, min(size, len(rows)))
        made, _ = compression.apply(features, targets)
        basis = np.linalg.qr(made[:, 0].T)[0]
        lost = np.mean(np.sum((rows - rows @ basis @ basis.T) ** 2, axis=1))
        bracket = values[: compression.size].sum() - np.trace(basis.T @ second @ basis)
        assert abs(lost - values[compression.size :].sum() - bracket) <= scale
        assert bracket >= -scale
        if make is global_eigenvectors:
            assert abs(bracket) <= scale


@FEW
@given(**PROBLEMS, size=st.integers(1, 6))
def test_the_compressed_kernel_is_no_larger_than_the_kernel(size, **kwargs):
    """K - K_Π ⪰ 0 in each class, for the projector to the span of the synthetic gradients."""
    features, targets, _ = problem(**kwargs)
    size = min(size, len(features))
    for compression in (local_global(features, size, clusters=2), global_eigenvectors(features, size)):
        made, _ = compression.apply(features, targets)
        for c in range(features.shape[1]):
            basis = np.linalg.svd(made[:, c], full_matrices=False)[2]
            outside = features[:, c] - features[:, c] @ basis.T @ basis
            K = features[:, c] @ features[:, c].T
            projected = features[:, c] @ basis.T @ basis @ features[:, c].T
            np.testing.assert_allclose(K - projected, outside @ outside.T, atol=1e-10 * np.trace(K))
            assert np.linalg.eigvalsh(K - projected)[0] >= -1e-10 * np.trace(K)


@FEW
@given(**PROBLEMS, size=st.integers(1, 6), threshold=st.floats(0, 1))
def test_no_compression_keeps_more_of_the_mean_kernel_than_its_eigenvectors(size, threshold, **kwargs):
    features, _, _ = problem(**kwargs)
    parts = decompose(features, 2)
    K = np.mean(class_kernels(features), axis=0)
    best, other = (
        global_eigenvectors(parts, min(size, len(K))),
        compress(parts, min(size, len(K)), coverage_threshold=threshold),
    )
    assert best.size == other.size
    kept = [np.trace(c.vectors.T @ K @ c.vectors) for c in (best, other)]
    assert kept[1] <= kept[0] + 1e-12 * np.trace(K)
    np.testing.assert_allclose(kept[0], np.sort(np.linalg.eigvalsh(K))[::-1][: best.size].sum(), rtol=1e-9)


@FEW
@given(**PROBLEMS, size=st.integers(1, 5), smoothness=st.floats(0.1, 10))
def test_a_step_in_the_span_falls_short_of_the_best_one_by_the_distance_of_the_gradients(size, smoothness, **kwargs):
    """In the majoriser ⟨g, δ⟩ + L/2 ‖δ‖² the best δ in a span is -Πg/L; a step -g̃/L in it is worse by ‖g̃ - Πg‖²/2L."""
    features, targets, draw = problem(**kwargs | {"decade": 0})
    compression = local_global(features, min(size, len(features)), clusters=2)
    made, _ = compression.apply(features, targets)
    gradient = features[:, 0].T @ draw.standard_normal(len(features))
    synthetic = made[:, 0].T @ draw.standard_normal(compression.size)

    def majoriser(step):
        return gradient @ step + smoothness / 2 * step @ step

    # The best step in the span, from the normal equations of the quadratic in its coefficients
    steps = made[:, 0].T
    best = majoriser(steps @ np.linalg.lstsq(smoothness * steps.T @ steps, -steps.T @ gradient, rcond=1e-12)[0])
    basis = np.linalg.svd(made[:, 0], full_matrices=False)
    basis = basis[2][basis[1] > 1e-10 * basis[1][0]]
    gap = np.sum((synthetic - basis.T @ (basis @ gradient)) ** 2) / (2 * smoothness)
    scale = (gradient @ gradient + synthetic @ synthetic) / smoothness
    assert abs(majoriser(-synthetic / smoothness) - best - gap) <= 1e-6 * scale


@FEW
@given(**PROBLEMS)
def test_an_eigenvector_makes_a_gradient_as_long_as_the_root_of_its_eigenvalue(**kwargs):
    """‖Φᵀu‖² = kλ for Φ without the factor 1/√k; one class, so that K̄ is its kernel."""
    features, targets, _ = problem(**kwargs | {"outputs": 1})
    values = np.linalg.eigvalsh(mean_kernel(features))[::-1]
    compression = global_eigenvectors(features, len(features))
    made, _ = compression.apply(features, targets)
    k = features.shape[2]
    unscaled = compression.vectors.T @ (features[:, 0] * k**0.5)
    np.testing.assert_allclose(
        np.sum(unscaled**2, axis=1), k * values[: compression.size], rtol=1e-7, atol=1e-10 * k * values[0]
    )
    np.testing.assert_allclose(np.sum(made[:, 0] ** 2, axis=1), values[: compression.size], atol=1e-10 * values[0])


@FEW
@given(**PROBLEMS, ridge=st.floats(1e-6, 1))
def test_primal_and_dual_are_one(ridge, **kwargs):
    features, targets, draw = problem(**kwargs)
    others = draw.standard_normal((5, *features.shape[1:])) * np.abs(features).max()
    primal, dual = (class_ridge(features, targets, ridge, form).predict(others) for form in ("primal", "dual"))
    np.testing.assert_allclose(primal, dual, atol=1e-8 * max(1, np.abs(dual).max()))


@FEW
@given(**PROBLEMS, clusters=st.integers(1, 4), ridge=st.floats(1e-6, 1))
def test_an_orthonormal_compression_of_full_rank_is_exact_kernel_regression(clusters, ridge, **kwargs):
    """To 1e-8, against the explicit inverse of each class kernel."""
    features, targets, draw = problem(**kwargs | {"k": 3 * kwargs["m"], "decay": kwargs["decay"] / 5})
    others = draw.standard_normal((5, *features.shape[1:])) * np.abs(features).max()
    compression = local_global(features, len(features), clusters=clusters)
    assert compression.size == len(features)
    found = class_ridge(*compression.apply(features, targets), ridge).predict(others)
    wanted = np.empty_like(found)
    for c in range(features.shape[1]):
        K = features[:, c] @ features[:, c].T
        shifted = K + ridge * np.trace(K) / len(K) * np.eye(len(K))
        wanted[:, c] = others[:, c] @ features[:, c].T @ np.linalg.solve(shifted, targets[:, c])
    np.testing.assert_allclose(found, wanted, atol=1e-8 * max(1, np.abs(wanted).max()))


@FEW
@given(**PROBLEMS, size=st.one_of(st.none(), st.integers(1, 6)), clusters=st.integers(1, 4))
def test_a_threshold_of_zero_leaves_no_gaps(size, clusters, **kwargs):
    features, _, _ = problem(**kwargs)
    size = None if size is None else min(size, len(features))
    assert set(local_global(features, size, coverage_threshold=0, clusters=clusters).kinds) == {"local"}


@FEW
@given(**PROBLEMS, size=st.integers(1, 6), threshold=st.floats(0, 1), orthonormal=st.booleans())
def test_a_target_size_is_met_up_to_the_rank(size, threshold, orthonormal, **kwargs):
    features, _, _ = problem(**kwargs)
    size = min(size, len(features))
    rank = min(len(features), features.shape[1] * features.shape[2])
    found = local_global(features, size, coverage_threshold=threshold, clusters=3, orthonormal=orthonormal)
    assert found.vectors.shape == (len(features), min(size, rank))
    lengths = np.linalg.svd(found.vectors, compute_uv=False)
    assert lengths[-1] > 1e-7
    if orthonormal:
        np.testing.assert_allclose(lengths, 1, atol=1e-10)


@FEW
@given(**PROBLEMS, size=st.one_of(st.none(), st.integers(1, 6)))
def test_float32_features_of_any_scale_are_compressed_alike(size, **kwargs):
    features, _, _ = problem(**kwargs | {"decade": 0})
    size = None if size is None else min(size, len(features))
    features = features.astype("float32")
    first, second = (
        local_global(features * np.float32(s), size, clusters=2) for s in (1, 2.0 ** (3 * kwargs["decade"]))
    )
    assert isinstance(first, Compression)
    assert first.kinds == second.kinds
    np.testing.assert_array_equal(first.vectors, second.vectors)
