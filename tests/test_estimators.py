"""Every estimator against explicit kernels: exact where it must be, unbiased otherwise, whole and by part."""

import itertools

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.estimators import ESTIMATORS
from ntkest.inference import (
    alignment_of,
    effective_rank_of,
    frobenius_norm_of,
    target_alignment_of,
    trace_of,
)
from ntkest.quantities import measure
from tests import oracle

SAMPLING = ("reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "adaptive-hutch++")
METHODS = ("exact", *SAMPLING)
SHAPE = (6, 3)
BLOCKS = {"a.w": 12, "a.b": 3, "b.w": 9}
LAYERS = {"a": ("a.w", "a.b"), "b": ("b.w",)}


def jacobian(seed, blocks=BLOCKS, shape=SHAPE, scale=1.0):
    draw = np.random.default_rng(seed)
    decay = np.linspace(2, 0.2, int(np.prod(shape)))[:, None]
    return {name: scale * decay * draw.standard_normal((int(np.prod(shape)), n)) for name, n in blocks.items()}


def whole(blocks, names=None):
    return np.concatenate([block for name, block in blocks.items() if names is None or name in names], axis=1)


def definitions(A, B, y, centered):
    """The five quantities by definition."""
    H = oracle.centring(SHAPE, centered)
    K, L = oracle.kernel(A, H), oracle.kernel(B, H)
    return [
        oracle.trace(K),
        oracle.frobenius_norm(K),
        oracle.effective_rank(K),
        oracle.target_alignment(K, y, H),
        oracle.alignment(K, L),
    ]


def estimates(J, other, y, **keywords):
    """The same by ntkest, the last from another run because it has two kernels."""
    one = [trace_of(0), frobenius_norm_of(0), effective_rank_of(0), target_alignment_of(0)]
    first = measure(J, one, targets=y, **keywords)
    if keywords.get("passes"):
        keywords["passes"] *= 2
    return [*first, *measure(J, [alignment_of(0, 1)], others=(other,), **keywords)]


A, B, Y = jacobian(0), jacobian(1), np.random.default_rng(2).standard_normal(SHAPE)


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("modes", [{"vjp", "jvp"}, {"vjp"}, {"jvp"}], ids=["both", "vjp", "jvp"])
def test_exact_equals_the_definitions_whole_and_by_layer(modes, centered):
    J, other = one_mode(A, modes), one_mode(B, modes)
    found = estimates(J, other, Y, method="exact", by="layer", centered=centered)
    np.testing.assert_allclose([float(e) for e in found], definitions(whole(A), whole(B), Y, centered), rtol=1e-12)
    for layer, names in LAYERS.items():
        wanted = definitions(whole(A, names), whole(B, names), Y, centered)
        np.testing.assert_allclose([float(e.parts[layer]) for e in found], wanted, rtol=1e-12)


@pytest.mark.parametrize("modes", [{"vjp"}, {"jvp"}], ids=["vjp", "jvp"])
@pytest.mark.parametrize("memory", [200, 1000, 3000])
def test_exact_is_exact_in_any_memory_and_counts_what_it_recomputes(memory, modes):
    J, other = one_mode(A, modes), one_mode(B, modes)
    found = estimates(J, other, Y, method="exact", by="layer", memory=memory)
    np.testing.assert_allclose([float(e) for e in found], definitions(whole(A), whole(B), Y, False), rtol=1e-12)
    alone = min(18, 24) if modes == {"vjp"} else 24
    assert found[0].passes > alone
    assert J.pushed == found[0].passes + found[4].passes - other.pushed


def one_mode(blocks, modes):
    """A dense linearization that offers some modes only, and counts what is pushed through it."""
    from ntkest.dense import DenseLinearization

    class Counting(DenseLinearization):
        pushed = 0

        def jvp(self, tangents):
            assert "jvp" in self.modes
            self.pushed += tangents[0].shape[0]
            return super().jvp(tangents)

        def vjp(self, cotangents):
            assert "vjp" in self.modes
            self.pushed += cotangents.shape[0]
            return super().vjp(cotangents)

        def map_example_vjp(self, reduce, probes, **keywords):
            self.pushed += len(probes)
            return super().map_example_vjp(reduce, probes, **keywords)

    J = Counting(np, blocks, SHAPE)
    J.modes = frozenset(modes)
    J.pushed = 0
    return J


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("method", METHODS)
def test_passes_reported_are_passes_made(method, by):
    J = one_mode(A, {"vjp", "jvp"})
    for quantity in (ntkest.trace, ntkest.frobenius_norm, ntkest.effective_rank):
        J.pushed = 0
        estimate = quantity(J, method=method, passes=200, by=by)
        assert estimate.passes == J.pushed == estimate.n_jvp + estimate.n_vjp
        assert estimate.passes <= 200
    other = one_mode(B, {"vjp", "jvp"})
    J.pushed = other.pushed = 0
    estimate = ntkest.alignment(J, other, method=method, passes=200, by=by)
    assert estimate.passes == J.pushed + other.pushed <= 200
    J.pushed = 0
    estimate = ntkest.alignment(J, Y, method=method, passes=200, by=by)
    assert estimate.passes == J.pushed <= 200


@pytest.mark.parametrize("centered", [False, "examples"])
@pytest.mark.parametrize("method", SAMPLING)
def test_moments_are_unbiased_whole_and_by_layer(method, centered):
    """tr K, ‖K‖_F², ⟨K₁, K₂⟩ and yᵀKy: means over 300 seeds within 5 standard errors."""
    J, other = ntkest.from_jacobian(A, SHAPE), ntkest.from_jacobian(B, SHAPE)
    seeds, rows = 300, []
    for seed in range(seeds):
        found = estimates(J, other, Y, method=method, passes=60, seed=seed, by="layer", centered=centered)
        norm = measure(other, [frobenius_norm_of(0)], method="exact", by="layer", centered=centered)[0]
        rows.append(
            [
                unbiased
                for part in (None, *LAYERS)
                for unbiased in moments([e if part is None else e.parts[part] for e in (*found, norm)])
            ]
        )
    H = oracle.centring(SHAPE, centered)
    wanted = []
    for names in (None, *LAYERS.values()):
        K, y = oracle.kernel(whole(A, names), H), H @ Y.ravel()
        wanted += [oracle.trace(K), (K * K).sum(), y @ K @ y / (y @ y)]
    rows = np.array(rows)
    spread = np.maximum(rows.std(axis=0, ddof=1), 1e-12 * np.abs(wanted)) / np.sqrt(seeds)
    np.testing.assert_array_less(np.abs(rows.mean(axis=0) - wanted), 5 * spread)


def moments(found):
    """What is unbiased in the estimates: the trace, the square of the norm, and the numerator of the alignment."""
    trace, norm, _, target, _, _ = (float(e) for e in found)
    return trace, norm**2, target * norm


@pytest.mark.parametrize("method", ["reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++"])
def test_products_of_two_kernels_are_unbiased(method):
    from ntkest.estimators import ESTIMATORS, Counted, Problem
    from ntkest.tangents import group_parameters

    kernels = [ntkest.from_jacobian(A, SHAPE), ntkest.from_jacobian(whole(B)[:, :10], SHAPE)]
    K, L = oracle.kernel(whole(A)), oracle.kernel(whole(B)[:, :10])
    needs = frozenset({("cross", 0, 1), ("square", 0), ("square", 1)})
    found = []
    for seed in range(300):
        problem = Problem.of(tuple(map(Counted, kernels)), groups=group_parameters(("x",) * 3, None), needs=needs)
        estimator = ESTIMATORS[method]
        state = estimator.extend(problem, None, estimator.draw(problem, seed, 0, 7))
        state = estimator.extend(problem, state, estimator.draw(problem, seed, 7, 12))  # growing changes no mean
        product = estimator.moments(problem, state)["cross", 0, 1].value[0]
        found.append(product * 2.0 ** (2 * sum(problem.exponents)))
    error = np.std(found, ddof=1) / np.sqrt(300)
    assert abs(np.mean(found) - (K * L).sum()) < 5 * error


@pytest.mark.parametrize("method", [name for name in SAMPLING if ESTIMATORS[name].resumable])
def test_growing_gives_what_drawing_all_at_once_gives(method):
    from ntkest.estimators import ESTIMATORS, Counted, Problem
    from ntkest.tangents import group_parameters

    needs = frozenset({("trace", 0), ("cross", 0, 1), ("square", 0), ("square", 1)})
    estimator = ESTIMATORS[method]

    def run(cuts):
        kernels = (Counted(ntkest.from_jacobian(A, SHAPE)), Counted(ntkest.from_jacobian(B, SHAPE)))
        groups = group_parameters(tuple(BLOCKS), "layer")
        problem = Problem.of(kernels, groups=groups, needs=needs)
        state = None
        for start, stop in itertools.pairwise(cuts):
            state = estimator.extend(problem, state, estimator.draw(problem, 3, start, stop))
        return estimator.moments(problem, state)

    whole_run, pieces = run((0, 14)), run((0, 4, 5, 9, 14))
    for key in needs:
        np.testing.assert_allclose(pieces[key].value, whole_run[key].value, rtol=1e-9)
        if "hutch++" not in method:
            np.testing.assert_allclose(pieces[key].replicates, whole_run[key].replicates, rtol=1e-9)


def test_pairs_and_what_deleting_a_probe_leaves_equal_double_loops():
    """The U-statistics and their replicates, against loops over pairs of explicit Gram matrices."""
    from ntkest.estimators import ESTIMATORS, Counted, Problem
    from ntkest.probes import cotangent_expander, tangent_expander
    from ntkest.tangents import group_parameters

    kernels = [ntkest.from_jacobian(whole(A), SHAPE), ntkest.from_jacobian(whole(B), SHAPE)]
    needs = frozenset({("trace", 0), ("cross", 0, 1), ("square", 0), ("square", 1)})
    for method in ("reverse", "forward"):
        problem = Problem.of(tuple(map(Counted, kernels)), groups=group_parameters(("x",), None), needs=needs)
        estimator = ESTIMATORS[method]
        probes = estimator.draw(problem, 0, 0, 6)
        found = estimator.moments(problem, estimator.extend(problem, None, probes))
        scale = [2.0**e for e in problem.exponents]
        if method == "reverse":
            omega = cotangent_expander(kernels[0], 0)(probes.cotangents)
            images = [omega @ whole(A) / scale[0], omega @ whole(B) / scale[1]]
        else:
            v, w = (tangent_expander(k, 0)(bits)[0] for k, bits in zip(kernels, probes.tangents, strict=True))
            images = [v @ whole(A).T / scale[0], w @ whole(B).T / scale[1]]
        S, T, mixed = images[0] @ images[0].T, images[1] @ images[1].T, images[0] @ images[1].T

        for without in (None, 0, 3, 5):
            kept = [i for i in range(6) if i != without]
            cross = S * T if method == "reverse" else mixed**2
            wanted = {
                ("trace", 0): np.mean([S[i, i] for i in kept]),
                ("square", 0): np.mean([S[i, j] ** 2 for i in kept for j in kept if i != j]),
                ("square", 1): np.mean([T[i, j] ** 2 for i in kept for j in kept if i != j]),
                ("cross", 0, 1): np.mean([cross[i, j] for i in kept for j in kept if method == "forward" or i != j]),
            }
            for key, value in wanted.items():
                got = found[key].value[0] if without is None else found[key].replicates[without, 0]
                assert got == pytest.approx(value, rel=1e-12), (method, key, without)


@pytest.mark.parametrize("method", ["reverse", "forward"])
def test_windows_of_a_small_memory_budget_stay_unbiased(method):
    J = ntkest.from_jacobian(whole(A), SHAPE)
    K = oracle.kernel(whole(A))
    squares = [
        float(ntkest.frobenius_norm(J, method=method, passes=23, seed=seed, memory=5 * 24 * 8)) ** 2
        for seed in range(300)
    ]
    assert abs(np.mean(squares) - (K * K).sum()) < 5 * np.std(squares, ddof=1) / np.sqrt(300)


@pytest.mark.parametrize("method", METHODS)
def test_layers_of_the_trace_sum_to_the_whole(method):
    estimate = ntkest.trace(ntkest.from_jacobian(A, SHAPE), method=method, passes=120, by="layer")
    assert set(estimate.parts) == {"a", "b"}
    assert sum(float(part) for part in estimate.parts.values()) == pytest.approx(float(estimate), rel=1e-13)
    by_parameter = ntkest.trace(ntkest.from_jacobian(A, SHAPE), method=method, passes=120, by="parameter")
    assert list(by_parameter.parts) == list(BLOCKS)
    assert sum(float(part) for part in by_parameter.parts.values()) == pytest.approx(float(by_parameter), rel=1e-13)


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1.0, 1e8, 1e15])
@pytest.mark.parametrize("method", METHODS)
def test_rescaling_the_jacobian_rescales_in_float32(method, scale):
    """Whatever the scale: tr(s²K) = s² tr K, and ratios stay."""
    base = {name: block.astype(np.float32) for name, block in A.items()}
    scaled = {name: (block * scale).astype(np.float32) for name, block in A.items()}
    J, Js = ntkest.from_jacobian(base, SHAPE), ntkest.from_jacobian(scaled, SHAPE)
    keywords = {"method": method, "passes": 60}
    for quantity, power in ((ntkest.trace, 2), (ntkest.frobenius_norm, 2), (ntkest.effective_rank, 0)):
        ours, reference = quantity(Js, **keywords), quantity(J, **keywords)
        assert float(ours) / scale**power == pytest.approx(float(reference), rel=2e-5)
        assert float(ours.std_error) / scale**power == pytest.approx(float(reference.std_error), rel=1e-3)
    assert float(ntkest.alignment(Js, J, **keywords)) == pytest.approx(
        1 if method == "exact" else float(ntkest.alignment(J, J, **keywords)), rel=2e-5
    )


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
@pytest.mark.parametrize("method", METHODS)
def test_every_estimator_keeps_to_the_standard_and_to_its_device(method, device):
    if device != "CPU_DEVICE" and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("array_api_strict cannot leave its second device on NumPy 1")
    where = array_api_strict.Device(device)
    blocks = {name: array_api_strict.asarray(block, device=where) for name, block in A.items()}
    others = {name: array_api_strict.asarray(block, device=where) for name, block in B.items()}
    J, other = ntkest.from_jacobian(blocks, SHAPE), ntkest.from_jacobian(others, SHAPE)
    y = array_api_strict.asarray(Y, device=where)
    found = estimates(J, other, y, method=method, passes=80, by="layer", centered=True)
    reference = estimates(
        ntkest.from_jacobian(A, SHAPE),
        ntkest.from_jacobian(B, SHAPE),
        Y,
        method=method,
        passes=80,
        by="layer",
        centered=True,
    )
    for estimate, wanted in zip(found, reference, strict=True):
        assert estimate.value.device == where
        assert estimate.value.shape == estimate.std_error.shape == ()
        assert float(estimate) == pytest.approx(float(wanted), rel=1e-10)
        assert float(estimate.std_error) == pytest.approx(float(wanted.std_error), rel=1e-6)
        assert estimate.interval() == pytest.approx(wanted.interval(), rel=1e-6)


@pytest.mark.parametrize("method", SAMPLING)
def test_rank_below_the_samples_and_zero_kernels_are_right(method):
    low = oracle.with_spectrum([1.0, 0.5, 0.2], M=30, P=40)
    K = oracle.kernel(low)
    trace = ntkest.trace(ntkest.from_jacobian(low), method=method, passes=120)
    low_bound, high = trace.interval(0.9999)
    assert low_bound <= oracle.trace(K) <= high
    if "++" in method:
        assert float(trace) == pytest.approx(oracle.trace(K), rel=1e-10)
    zero = ntkest.from_jacobian(np.zeros((5, 7)))
    assert float(ntkest.trace(zero, method=method, passes=40)) == 0.0
    assert ntkest.trace(zero, method=method, passes=40).interval() == (0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_part_without_a_kernel_has_a_trace_of_zero_and_no_ratios(method):
    J = ntkest.from_jacobian({"a.w": A["a.w"], "b.w": 0 * A["b.w"]}, SHAPE)
    found = ntkest.summary(J, Y, by="layer", method=method, passes=60)
    assert float(found["trace"].parts["b"]) == float(found["frobenius_norm"].parts["b"]) == 0.0
    for ratio in ("effective_rank", "alignment"):
        assert np.isnan(float(found[ratio].parts["b"]))
        assert float(found[ratio].parts["a"]) == pytest.approx(float(found[ratio]), rel=1e-10)
