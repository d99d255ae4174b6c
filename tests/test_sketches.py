"""XNysTrace and XTrace: unbiased, right at the edges where others fail, the same however they are run."""

import numpy as np
import pytest

import ntkest
from ntkest.probes import Probes, draw_normal_cotangents
from tests import oracle

METHODS = ["xnystrace", "xtrace", "xtrace-power"]
QUANTITIES = {"trace": oracle.trace, "frobenius_norm": oracle.frobenius_norm, "effective_rank": oracle.effective_rank}


def dense(spectrum, M=60, P=60, seed=0, scale=1.0, dtype=np.float64):
    A = scale * oracle.with_spectrum(oracle.spectra(M)[spectrum], M, seed, P)
    return ntkest.from_jacobian(A.astype(dtype)), oracle.kernel(A)


@pytest.mark.parametrize("P", [60, 400])  # the second on the side of the parameters
@pytest.mark.parametrize("spectrum", ["exponential", "power-1", "step", "flat"])
@pytest.mark.parametrize("method", METHODS)
def test_the_trace_and_the_squared_norm_are_unbiased(method, spectrum, P):
    J, K = dense(spectrum, P=P)
    summaries = [ntkest.summary(J, method=method, passes=33, seed=seed) for seed in range(200)]
    traces = np.array([float(s["trace"]) for s in summaries]) / oracle.trace(K)
    squares = (np.array([float(s["frobenius_norm"]) for s in summaries]) / oracle.frobenius_norm(K)) ** 2
    for found in (traces, squares):
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - 1) < 4 * error + 1e-12
        assert error < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_products_of_kernels_are_unbiased(method):
    A = oracle.with_spectrum(oracle.spectra(60)["power-1"], 60, 0, 70)
    B = oracle.with_spectrum(oracle.spectra(60)["exponential"], 60, 1, 90) + 0.5 * np.pad(A, ((0, 0), (0, 20)))
    J, other = ntkest.from_jacobian(A), ntkest.from_jacobian(1e3 * B)
    truth = oracle.alignment(oracle.kernel(A), oracle.kernel(B))
    found = np.array([float(ntkest.alignment(J, other, method=method, passes=96, seed=s)) for s in range(100)])
    assert abs(found.mean() - truth) < 4 * found.std(ddof=1) / 10 + 2 * found.var()
    e = ntkest.alignment(J, other, method=method, passes=96)
    assert abs(float(e) - truth) < 5 * float(e.std_error)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_rank_below_the_sample_count_is_exact_at_any_scale(method, scale, quantity):
    J, K = dense("rank-5", scale=scale)
    e = getattr(ntkest, quantity)(J, method=method, passes=59)
    assert float(e) == pytest.approx(QUANTITIES[quantity](K), rel=1e-12)
    assert float(e.std_error) < 1e-6 * float(e)
    low, high = e.interval()
    assert low <= QUANTITIES[quantity](K) <= high


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("method", METHODS)
def test_float32_keeps_its_digits_at_any_scale(method, scale):
    J, K = dense("exponential", scale=scale, dtype=np.float32)
    e = ntkest.trace(J, method=method, passes=58)
    f = ntkest.trace(dense("exponential")[0], method=method, passes=58)
    assert float(e) / scale**2 == pytest.approx(float(f), rel=1e-5)
    assert abs(float(e) / oracle.trace(K) - 1) < 1e-2


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_zero_operator_is_zero(method):
    J = ntkest.from_jacobian(np.zeros((50, 70)))
    for quantity in (ntkest.trace, ntkest.frobenius_norm):
        e = quantity(J, method=method, passes=40)
        assert float(e) == 0
        assert e.interval() == (0, 0)
    with pytest.raises(ntkest.NTKError, match="the kernel is zero"):
        ntkest.effective_rank(J, method=method, passes=40)


@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (9, 9), (3, 30)])
@pytest.mark.parametrize("method", METHODS)
def test_as_many_samples_as_outputs_or_parameters_are_the_end(method, shape):
    """Whatever is paid beyond; and one dimension that is left is not too few."""
    A = np.random.default_rng(0).standard_normal(shape)
    J = ntkest.from_jacobian(A)
    if min(shape) < 4:
        with pytest.raises(ntkest.NTKError, match="exact"):
            ntkest.trace(J, method=method, passes=100)
        return
    e = ntkest.summary(J, method=method, passes=1000)
    assert e.passes <= {"xnystrace": 2, "xtrace": 4, "xtrace-power": 6}[method] * min(shape)
    if shape[0] <= shape[1]:
        assert float(e["trace"]) == pytest.approx(np.sum(A * A), rel=1e-8)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("method", METHODS)
def test_probes_that_repeat_others_count_once(method, quantity):
    J, _ = dense("power-1")
    rows = draw_normal_cotangents(J, 0, 0, 12)
    twice = np.concatenate([rows, rows[:5], rows[:1] - 2 * rows[3:4]])
    e = getattr(ntkest, quantity)(J, method=method, probes=Probes(cotangents=twice))
    f = getattr(ntkest, quantity)(J, method=method, probes=Probes(cotangents=rows))
    assert float(e) == pytest.approx(float(f), rel=1e-9)
    assert e.about["samples"] == 12


@pytest.mark.parametrize("method", METHODS)
def test_centring_is_that_of_the_kernel(method):
    draw = np.random.default_rng(3)
    A = oracle.with_spectrum(0.5 ** np.arange(40), 40, 0, 50) + draw.standard_normal(50)[None, :]
    J = ntkest.from_jacobian(A.reshape(40, 50), output_shape=(20, 2))
    K = oracle.kernel(A, oracle.centring((20, 2), True))
    s = ntkest.summary(J, method=method, passes=36, centered=True)
    assert float(s["trace"]) == pytest.approx(oracle.trace(K), rel=0.02)
    assert float(s["effective_rank"]) == pytest.approx(oracle.effective_rank(K), rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_layers_are_refused_with_a_way_out(method):
    J, _ = dense("flat")
    with pytest.raises(ntkest.NTKError, match=r"no parts for by=.*reverse"):
        ntkest.trace(J, method=method, by="layer", passes=40)


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_of_low_rank_does_not_end_the_sampling_of_another(method):
    """More samples than one of the kernels has parameters: its own norm is exact, products stay unbiased."""
    draw = np.random.default_rng(0)
    B = draw.standard_normal((40, 60)) / np.sqrt(np.arange(1, 61))
    A = B[:, :4] + 0.3 * draw.standard_normal((40, 4))
    J, other, truth = ntkest.from_jacobian(A), ntkest.from_jacobian(B), oracle.alignment(A @ A.T, B @ B.T)
    found = [ntkest.alignment(J, other, method=method, passes=96, seed=seed) for seed in range(60)]
    assert all(e.passes == 96 for e in found)
    values = np.array([float(e) for e in found])
    assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / np.sqrt(60) + values.var()
    inside = np.mean([low <= truth <= high for low, high in (e.interval() for e in found)])
    assert inside > 0.85


@pytest.mark.parametrize("parameters", [1, 2, 3, 6])
@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_alignments_with_kernels_of_low_rank_meet_their_tolerance(method, parameters):
    draw = np.random.default_rng(0)
    A, B = draw.standard_normal((400, parameters)), draw.standard_normal((400, 3000))
    e = ntkest.alignment(ntkest.from_jacobian(A), ntkest.from_jacobian(B), method=method, rtol=0.1)
    assert e.converged
    assert float(e) == pytest.approx(oracle.alignment(A @ A.T, B @ B.T), rel=0.2)


def kept(run):
    """Bytes of the arrays in a run's state."""
    state = run.state
    rows = (
        [*(basis.rows for basis in state.bases), *state.images]
        if hasattr(state, "bases")
        else [state.basis, *state.images, *state.pulled]
    )
    return sum(block.nbytes for blocks in rows for block in blocks)


@pytest.mark.parametrize("parameters", [90, 4000])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_what_is_kept_fits_in_memory(method, parameters):
    A = np.random.default_rng(0).standard_normal((60, parameters)) / np.arange(1, parameters + 1)
    J = ntkest.from_jacobian(A)
    memory = 20 * 8 * (60 + parameters)
    e = ntkest.trace(J, method=method, rtol=1e-5, max_passes=59, memory=memory, state=True)
    assert abs(float(e) - np.sum(A * A)) < 5 * float(e.std_error)
    drops = parameters == 4000 and e.method == "xnystrace"  # what is of the size of the parameters
    if e.method in METHODS:
        assert 4 <= e.state.samples <= (29 if drops else 20)
        assert kept(e.state) <= memory
    little = 3 * 8 * (60 + parameters)
    if drops:
        assert ntkest.trace(J, method=method, passes=40, memory=little).method == "xnystrace"
    elif method != "auto":
        with pytest.raises(ntkest.NTKError, match="memory="):
            ntkest.trace(J, method=method, passes=40, memory=little)
    else:
        for options in ({"passes": 40}, {"rtol": 0.3, "max_passes": 59}):
            assert ntkest.trace(J, method=method, memory=little, **options).method in (
                "reverse",
                "forward",
                "xnystrace",
            )


def test_a_plan_has_out_of_reach_what_memory_does_not_hold():
    J = ntkest.from_jacobian(oracle.with_spectrum(1 / np.arange(1, 301) ** 0.5, 300, 0))
    prospects = ntkest.plan(J, 0.001, memory=60 * 8 * 300)
    assert not prospects["xnystrace"].reached
    assert ntkest.plan(J, 0.001)["xnystrace"].reached


@pytest.mark.parametrize("passes", [20, 60, 110])
@pytest.mark.parametrize("decay", [None, 0.5])
def test_error_bars_know_of_rounding_where_a_sketch_has_all_of_the_kernel(decay, passes):
    """In float32, of rank 5 or exponential: without gradients each direction loses digits, by bad luck some more."""
    rng, hits = np.random.default_rng(0), []
    for seed in range(10):
        A = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 300))
        if decay is not None:
            A = oracle.with_spectrum(decay ** np.arange(60), 60, seed, 300)
        A = A.astype(np.float32)
        J, K = ntkest.from_jacobian(A), oracle.kernel(A.astype(np.float64))
        for quantity in ("trace", "frobenius_norm"):
            low, high = getattr(ntkest, quantity)(J, method="xnystrace", passes=passes, seed=seed).interval(0.99)
            hits.append(low <= QUANTITIES[quantity](K) <= high)
    assert np.mean(hits) >= 0.8  # usual rounding floors alone cover none of some of these cells


@pytest.mark.parametrize(
    ("method", "each", "P"), [("xnystrace", 2, 60), ("xtrace", 3, 60), ("xtrace", 3, 300), ("xtrace-power", 5, 300)]
)
def test_as_many_samples_as_outputs_are_exact_in_float32(method, each, P):
    """However close to dependent square matrices of normal numbers come; but of gradients that are not kept."""
    A = oracle.with_spectrum(0.93 ** np.arange(60), 60, 0, P).astype(np.float32)
    J, K = ntkest.from_jacobian(A), oracle.kernel(A.astype(np.float64))
    for seed in range(8):
        e = ntkest.trace(J, method=method, passes=60 * each, seed=seed)
        assert abs(float(e) / oracle.trace(K) - 1) < 5e-6
        low, high = e.interval(0.999)
        assert low <= oracle.trace(K) <= high
