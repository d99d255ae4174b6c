"""Nyström++ and A-Hutch++ against naive transcriptions with explicit matrices."""

import numpy as np
import pytest

import ntkest
from ntkest.estimators import ESTIMATORS, Counted, Problem, adaptivehutchpp
from ntkest.inference import trace_of
from ntkest.probes import cotangent_expander
from ntkest.quantities import pose
from ntkest.tangents import group_parameters
from tests import oracle
from tests.test_estimators import BLOCKS, LAYERS, SHAPE, A, B, whole

NEEDS = frozenset({("trace", 0), ("trace", 1), ("square", 0), ("square", 1), ("cross", 0, 1)})
NYSTROM, ADAPTIVE = ESTIMATORS["nystrom++"], ESTIMATORS["adaptive-hutch++"]


def problem_of(kernels=(A, B), by="layer", needs=NEEDS, **settings):
    counted = tuple(Counted(ntkest.from_jacobian(blocks, SHAPE)) for blocks in kernels)
    return Problem.of(counted, groups=group_parameters(tuple(BLOCKS), by), needs=needs, **settings)


def naive(jacobians, omega_sketch, omega):
    """{key: (value, values without probe i)} with dense kernels: B and E of each as matrices."""
    known, rests = [], []
    for J in jacobians:
        Q = np.linalg.qr(J.T @ omega_sketch.T)[0]
        known.append(J @ Q @ Q.T @ J.T)
        rests.append(J @ J.T - known[-1])
    count = len(omega)
    found = {}
    for a in range(2):
        samples = [w @ rests[a] @ w for w in omega]
        found["trace", a] = [np.trace(known[a]) + np.mean(np.delete(samples, i)) for i in range(count)]
        found["trace", a].insert(0, np.trace(known[a]) + np.mean(samples))
    for key, (a, b) in {("square", 0): (0, 0), ("square", 1): (1, 1), ("cross", 0, 1): (0, 1)}.items():
        K, L = known[a] + rests[a], known[b] + rests[b]
        exact = (known[a] * L).sum() + (K * known[b]).sum() - (known[a] * known[b]).sum()
        pairs = {
            (i, j): (omega[i] @ rests[a] @ omega[j]) * (omega[i] @ rests[b] @ omega[j])
            for i in range(count)
            for j in range(count)
            if i != j
        }
        found[key] = [exact + np.mean(list(pairs.values()))]
        found[key] += [exact + np.mean([q for ij, q in pairs.items() if i not in ij]) for i in range(count)]
    return found


def expanded(problem, bits):
    return cotangent_expander(problem.kernels[0].J, 0)(bits)


@pytest.mark.parametrize("part", ["", *LAYERS])
def test_values_and_what_deleting_a_probe_leaves_equal_dense_formulas(part):
    """Of a layer from that layer's own basis; of the whole from all layers' together, here with one layer."""
    by = "layer" if part else None
    problem = problem_of(by=by)
    probes = NYSTROM.draw(problem, 3, 0, 8)
    found = NYSTROM.moments(problem, NYSTROM.extend(problem, None, probes))
    row = 1 + list(LAYERS).index(part) if part else 0
    scale = [2.0**-e for e in problem.exponents]
    jacobians = [whole(blocks, LAYERS[part] if part else None) * s for blocks, s in zip((A, B), scale, strict=True)]
    wanted = naive(jacobians, expanded(problem, probes.sketch), expanded(problem, probes.cotangents))
    for key in NEEDS:
        ours = [found[key].value[row], *found[key].replicates[:, row]]
        np.testing.assert_allclose(ours, wanted[key], rtol=1e-9)


def test_the_whole_by_layer_has_the_basis_of_all_layers():
    problem = problem_of(needs=frozenset({("trace", 0), ("square", 0)}), kernels=(A,))
    probes = NYSTROM.draw(problem, 3, 0, 8)
    found = NYSTROM.moments(problem, NYSTROM.extend(problem, None, probes))
    sketch, omega = expanded(problem, probes.sketch), expanded(problem, probes.cotangents)
    K, known = oracle.kernel(whole(A)), 0
    for names in LAYERS.values():
        J = whole(A, names)
        Q = np.linalg.qr(J.T @ sketch.T)[0]
        known = known + J @ Q @ Q.T @ J.T
    E = omega @ (K - known) @ omega.T
    scale = 2.0 ** (2 * problem.exponents[0])
    assert found["trace", 0].value[0] * scale == pytest.approx(np.trace(known) + np.mean(np.diag(E)), rel=1e-9)
    square = 2 * (K * known).sum() - (known * known).sum() + np.mean(E[~np.eye(8, dtype=bool)] ** 2)
    assert found["square", 0].value[0] * scale**2 == pytest.approx(square, rel=1e-9)


@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
def test_small_memory_gives_windows_and_stays_unbiased(method):
    J, K = ntkest.from_jacobian(whole(A), SHAPE), oracle.kernel(whole(A))
    squares = [
        float(ntkest.frobenius_norm(J, method=method, passes=41, seed=seed, memory=5 * 24 * 8)) ** 2
        for seed in range(300)
    ]
    assert abs(np.mean(squares) - (K * K).sum()) < 5 * np.std(squares, ddof=1) / np.sqrt(300)


@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_float32_at_far_scales_and_ranks_below_the_samples(method, scale):
    values = np.array([3.0, 2.0, 1.0, 0.5, 0.25])
    matrix = (oracle.with_spectrum(values, 60, P=80) * 0.5).astype(np.float32)
    J = ntkest.from_jacobian(matrix * np.float32(scale))
    rank = ntkest.effective_rank(J, method=method, passes=100)
    truth = values.sum() ** 2 / (values**2).sum()
    assert rank.value.dtype == np.float32
    assert float(rank) == pytest.approx(truth, rel=1e-5)
    assert rank.half_width < 1e-5 * truth
    other = ntkest.from_jacobian(oracle.with_spectrum(values, 60, P=70, seed=1).astype(np.float32))
    K, L = oracle.kernel(matrix), oracle.kernel(oracle.with_spectrum(values, 60, P=70, seed=1))
    assert float(ntkest.alignment(J, other, method=method, passes=200)) == pytest.approx(
        oracle.alignment(K, L), rel=1e-4
    )


def test_the_residual_norms_of_the_triangle_are_unbiased():
    """tr E_{k-1} and ‖E_{k-2}‖_F² from R alone, against explicit E of leave-one-out and leave-two-out sketches."""
    K = oracle.kernel(whole(A))
    draw, n = np.random.default_rng(0), 5
    found, wanted = [], []
    for _ in range(300):
        omega = np.sign(draw.standard_normal((len(K), n)))
        R = np.linalg.qr(np.linalg.cholesky(K + 1e-12 * np.eye(len(K))).T @ omega)[1]
        found.append([float(x) for x in adaptivehutchpp._residual(np, R)])

        def rest(columns, omega=omega):
            S = K @ omega[:, columns]
            return K - S @ np.linalg.solve(omega[:, columns].T @ S, S.T)

        wanted.append([np.trace(rest(range(n - 1))), (rest(range(n - 2)) ** 2).sum()])
    found, wanted = np.array(found), np.array(wanted)
    error = (found - wanted).std(axis=0, ddof=1) / np.sqrt(300)
    np.testing.assert_array_less(np.abs((found - wanted).mean(axis=0)), 5 * error)


def split_of(J, passes, seed=0):
    """Columns and probes that A-Hutch++ chooses."""
    problem = Problem.of((Counted(J),), groups=group_parameters(J.param_names, None), needs=frozenset({("trace", 0)}))
    state = ADAPTIVE.extend(problem, None, ADAPTIVE.draw(problem, seed, 0, passes))
    assert problem.passes == state.spent <= passes
    return state.split.bases[0].count, state.split.signs.shape[0]


def test_steep_spectra_get_columns_and_flat_ones_probes():
    steep = [
        split_of(ntkest.from_jacobian(oracle.with_spectrum(0.8 ** np.arange(200), 200)), 120, s)[0] for s in range(9)
    ]
    flat = [
        split_of(ntkest.from_jacobian(oracle.with_spectrum(np.linspace(3, 1, 200), 200)), 120, s)[0] for s in range(9)
    ]
    assert np.median(steep) > 40
    assert np.median(flat) <= 20
    columns, probes = split_of(ntkest.from_jacobian(oracle.with_spectrum(np.ones(5), 200)), 120)
    assert columns <= 16  # E is gone: no more columns
    assert 2 * columns + probes == 120


@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
@pytest.mark.parametrize("name", ["exponential", "flat", "rank-5"])
def test_intervals_cover_the_truth(name, method):
    matrix = oracle.with_spectrum(oracle.spectra(150)[name], 150)
    J, K = ntkest.from_jacobian(matrix), oracle.kernel(matrix)
    truth = [oracle.trace(K), oracle.frobenius_norm(K), oracle.effective_rank(K)]
    hits = []
    for seed in range(120):
        found = ntkest.summary(J, method=method, passes=60, seed=seed)
        bounds = [e.interval() for e in found.values()]
        hits.append(
            [low * (1 - 1e-13) <= t <= high * (1 + 1e-13) for t, (low, high) in zip(truth, bounds, strict=True)]
        )
    assert (np.mean(hits, axis=0) >= 0.88).all()


@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
def test_a_tolerance_is_met_and_extensions_throw_nothing_away(method):
    matrix = oracle.with_spectrum(0.9 ** np.arange(150), 150)
    found = ntkest.trace(ntkest.from_jacobian(matrix), method=method, rtol=0.01)
    assert found.converged
    assert found.passes < 300  # reverse takes 4,000
    assert float(found) == pytest.approx(10, rel=0.03)


def test_too_few_passes_are_refused_with_the_number_needed():
    J = ntkest.from_jacobian(A, SHAPE)
    with pytest.raises(ntkest.NTKError, match="take 8"):
        ntkest.trace(J, method="nystrom++", passes=7)
    with pytest.raises(ntkest.NTKError, match="at least 28 passes"):
        ntkest.alignment(J, ntkest.from_jacobian(B, SHAPE), method="adaptive-hutch++", passes=26, by="parameter")


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
def test_bases_have_no_more_columns_than_memory_holds(method, by):
    """In half of the budget; the traces stay unbiased, and more passes go to probes."""
    J, K = ntkest.from_jacobian(A, SHAPE), oracle.kernel(whole(A))
    parts = 1 if by is None else len(LAYERS)
    problem = pose(J, [trace_of(0)], by=by, memory=2 * 5 * 8 * (whole(A).shape[1] + parts * whole(A).shape[0]))
    estimator = ESTIMATORS[method]
    samples = estimator.samples(problem, 60)
    state = estimator.extend(problem, None, estimator.draw(problem, 0, 0, samples))
    split = getattr(state, "split", state)
    assert split.bases[0].count == 5
    assert problem.passes <= 60
    assert estimator.passes(problem, samples) in (problem.passes, 60)
    found = [float(ntkest.trace(J, method=method, passes=40, seed=seed, memory=problem.memory)) for seed in range(200)]
    assert abs(np.mean(found) - np.trace(K)) < 4.5 * np.std(found, ddof=1) / np.sqrt(200)
