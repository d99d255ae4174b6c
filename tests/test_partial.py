"""Partial traces and diagonals against explicit kernels: exact where they must be, unbiased and covered otherwise."""

import itertools
import json

import array_api_strict
import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.partial.choice import METHODS
from ntkest.partial.layout import Layout, layout_over
from ntkest.testing.host import to_host
from tests import oracle
from tests.networks import FRAMEWORKS, linearized, network

SAMPLING = ("forward", "reverse", "hutchinson", "nystrom++")
SHAPE = (3, 4, 2)  # a recurrent net: examples, time steps, units
AXES = ("example", "time", "unit")
M = 24
BLOCKS = {"a.w": 20, "a.b": 4, "b.w": 12}
LAYERS = {"a": ("a.w", "a.b"), "b": ("b.w",)}
PASSES = 60


def jacobian(seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    decay = np.linspace(2, 0.2, M)[:, None]
    return {name: scale * decay * draw.standard_normal((M, n)) for name, n in BLOCKS.items()}


def whole(blocks, names=None):
    return np.concatenate([block for name, block in blocks.items() if names is None or name in names], axis=1)


def traces(K, over, shape=SHAPE):
    """Sums of diagonal entries, one output at a time."""
    found = np.zeros([shape[axis] for axis in over])
    for i, index in enumerate(np.ndindex(*shape)):
        found[tuple(index[axis] for axis in over)] += K[i, i]
    return found


A = jacobian()
K = oracle.kernel(whole(A))
OVER = [(0,), (1,), (2,), (0, 1), (2, 0), (1, 2, 0)]


def dense(blocks=A, modes=("vjp", "jvp")):
    """A linearization that offers some modes only, and counts what is pushed through it."""
    from ntkest.dense import DenseLinearization

    class Counting(DenseLinearization):
        pushed = 0

        def jvp(self, tangents):
            self.pushed += tangents[0].shape[0]
            return super().jvp(tangents)

        def vjp(self, cotangents):
            self.pushed += cotangents.shape[0]
            return super().vjp(cotangents)

    J = Counting(np, blocks, SHAPE)
    J.modes = frozenset(modes)
    J.pushed = 0
    return J


# -- what is computed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("modes", [("vjp", "jvp"), ("vjp",), ("jvp",)], ids="-".join)
@pytest.mark.parametrize("over", OVER, ids=str)
def test_exact_traces_equal_sums_of_diagonal_entries_whole_and_by_layer(over, modes, centered):
    found = ntkest.partial_trace(dense(modes=modes), over, method="exact", by="layer", centered=centered)
    H = oracle.centring(SHAPE, centered)
    np.testing.assert_allclose(found.value, traces(oracle.kernel(whole(A), H), over), rtol=1e-12)
    for layer, names in LAYERS.items():
        wanted = traces(oracle.kernel(whole(A, names), H), over)
        np.testing.assert_allclose(found.parts[layer].value, wanted, rtol=1e-12)
    assert found.over == over
    assert found.passes == (24 if "vjp" in modes else 36)


@pytest.mark.parametrize("memory", [1, 500, 5000])
@pytest.mark.parametrize("modes", [("vjp",), ("jvp",)], ids="-".join)
def test_exact_traces_stay_exact_in_little_memory(modes, memory):
    found = ntkest.diagonal(dense(modes=modes), method="exact", by="layer", memory=memory)
    np.testing.assert_allclose(found.value, traces(K, (0, 1, 2)), rtol=1e-12)


def test_the_diagonal_has_the_shape_of_the_outputs():
    found = ntkest.diagonal(dense(), method="reverse")
    assert found.value.shape == SHAPE
    assert found.passes == found.n_vjp == M
    np.testing.assert_allclose(found.value, np.diag(K).reshape(SHAPE), rtol=1e-12)
    single = ntkest.diagonal(ntkest.from_jacobian(np.ones((1, 3)), ()))
    assert single.value.shape == ()
    assert float(single.value) == 3.0


@pytest.mark.parametrize("over", [(1,), (2, 0), (0, 1, 2)], ids=str)
def test_blocks_are_numbered_as_their_sums_are(over):
    layout = Layout(SHAPE, over, (None,) * len(over))
    rows = np.random.default_rng(0).standard_normal((2, M))
    sums = np.stack([rows[:, layout.owners() == block].sum(axis=1) for block in range(layout.count)], axis=1)
    np.testing.assert_allclose(layout.sums(np, rows), sums, rtol=1e-13)
    assert layout.block * layout.count == M


@pytest.mark.parametrize("centered", [False, "examples"])
@pytest.mark.parametrize("over", [(0,), (2, 0), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("method", SAMPLING)
def test_entries_are_unbiased_whole_and_by_layer(method, over, centered):
    """Means over 300 seeds within 5 standard errors of explicit traces."""
    J, seeds = ntkest.from_jacobian(A, SHAPE), 300
    passes = {"reverse": 4 * int(np.prod([SHAPE[a] for a in over]))}.get(method, PASSES)
    rows = []
    for seed in range(seeds):
        found = ntkest.partial_trace(J, over, method=method, passes=passes, seed=seed, by="layer", centered=centered)
        rows.append([part.value for part in (found, *found.parts.values())])
    rows, H = np.array(rows), oracle.centring(SHAPE, centered)
    wanted = np.array([traces(oracle.kernel(whole(A, names), H), over) for names in (None, *LAYERS.values())])
    spread = np.maximum(rows.std(axis=0, ddof=1), 1e-12 * wanted) / np.sqrt(seeds)
    np.testing.assert_array_less(np.abs(rows.mean(axis=0) - wanted), 5 * spread)


def test_variances_are_those_of_the_formulas():
    """Of one probe: within 15 % at 2000 seeds of 4 probes."""
    J, over = ntkest.from_jacobian(A, SHAPE), (1,)
    B = whole(A)
    owner = Layout(SHAPE, over, (None,)).owners()
    inside = [owner == block for block in range(4)]
    forward = [2 * ((B[a] @ B[a].T) ** 2).sum() - 2 * (((B[a] ** 2).sum(axis=0)) ** 2).sum() for a in inside]
    reverse = [2 * (K[np.ix_(a, a)] ** 2).sum() - 2 * (np.diag(K)[a] ** 2).sum() for a in inside]
    two = [r + (K[np.ix_(a, ~a)] ** 2).sum() for r, a in zip(reverse, inside, strict=True)]
    for method, passes, wanted in (("forward", 4, forward), ("reverse", 16, reverse), ("hutchinson", 8, two)):
        values = [ntkest.partial_trace(J, 1, method=method, passes=passes, seed=s).value for s in range(2000)]
        np.testing.assert_allclose(4 * np.var(values, axis=0, ddof=1), wanted, rtol=0.15, err_msg=method)


@pytest.mark.parametrize("method", METHODS)
def test_entries_sum_to_the_trace_and_layers_to_the_whole(method):
    J = ntkest.from_jacobian(A, SHAPE)
    found = ntkest.partial_trace(J, ("time", 2), axes=AXES, method=method, passes=PASSES, by="layer")
    assert found.value.shape == (4, 2)
    assert float(found.total) == pytest.approx(found.value.sum(), rel=1e-12)
    np.testing.assert_allclose(sum(part.value for part in found.parts.values()), found.value, rtol=1e-12)
    low, high = found.total.interval(0.9999)
    assert low <= np.trace(K) <= high
    assert found.total.quantity == "trace"


def test_the_total_of_forward_traces_is_the_trace_from_the_same_probes():
    J = ntkest.from_jacobian(A, SHAPE)
    found = ntkest.partial_trace(J, 0, method="forward", passes=30, seed=4)
    alone = ntkest.trace(J, method="forward", passes=30, seed=4)
    assert float(found.total) == pytest.approx(float(alone), rel=1e-12)
    assert float(found.total.std_error) == pytest.approx(float(alone.std_error), rel=1e-9)


def test_nystrom_is_exact_where_the_subspace_holds_the_rank():
    low = oracle.with_spectrum([1.0, 0.5, 0.2], M=24, P=40)
    found = ntkest.diagonal(ntkest.from_jacobian(low, SHAPE), method="nystrom++", passes=24)
    np.testing.assert_allclose(found.value.ravel(), (low**2).sum(axis=1), rtol=1e-13)
    assert found.converged
    assert (found.std_error <= 1e-14 * found.value).all()


@pytest.mark.parametrize("method", METHODS)
def test_outputs_that_nothing_moves_have_entries_of_zero(method):
    blocks = {name: block.copy() for name, block in A.items()}
    for block in blocks.values():
        block.reshape(*SHAPE, -1)[:, 1:] = 0.0  # padded steps
    found = ntkest.partial_trace(ntkest.from_jacobian(blocks, SHAPE), 1, method=method, passes=PASSES)
    assert (found.value[1:] == 0).all()
    assert (np.stack(found.interval())[:, 1:] == 0).all()
    nothing = ntkest.partial_trace(ntkest.from_jacobian(np.zeros((M, 5)), SHAPE), 0, method=method, passes=PASSES)
    assert (nothing.value == 0).all()
    assert nothing.converged


# -- error bars ------------------------------------------------------------------------------------------------------


def coverage(name, method, passes, over, size, seeds):
    """Share of entries in their 95 % intervals, of totals in theirs, and mean error bar over spread."""
    B = oracle.with_spectrum(oracle.spectra(size)[name], size)
    J, wanted = ntkest.from_jacobian(B, (size // 10, 10)), (B**2).sum(axis=1).reshape(-1, 10)
    wanted = wanted if len(over) == 2 else wanted.sum(axis=1 - over[0])
    hits, totals, values, errors = [], [], [], []
    for seed in range(seeds):
        found = ntkest.partial_trace(J, over, method=method, passes=passes, seed=seed)
        low, high = found.interval(0.95)
        bottom, top = found.total.interval(0.95)
        hits.append((low <= wanted) & (wanted <= high))
        totals.append(bottom <= wanted.sum() <= top)
        values.append(found.value)
        errors.append(found.std_error)
    return np.mean(hits), np.mean(totals), np.mean(errors) / np.mean(np.std(values, axis=0, ddof=1))


@pytest.mark.parametrize("over", [(0,), (0, 1)], ids=["blocks", "diagonal"])
@pytest.mark.parametrize("method", ["forward", "hutchinson", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "flat", "rank-5"])
def test_intervals_cover_and_error_bars_are_the_spread(name, method, over):
    entries, totals, ratio = coverage(name, method, 48, over, size=100, seeds=60)
    assert entries >= 0.9
    assert totals >= 0.85  # of 60
    if not (name == "rank-5" and method == "nystrom++"):
        assert entries <= 0.99
        assert 0.75 < ratio < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("over", [(0,), (0, 1)], ids=["blocks", "diagonal"])
@pytest.mark.parametrize("passes", [24, 48, 120])
@pytest.mark.parametrize("method", ["forward", "reverse", "hutchinson", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "power-1", "power-2", "step", "flat", "rank-5"])
def test_coverage_over_many_seeds(name, method, passes, over):
    if method == "reverse":
        passes, over = 10 * passes, (1,)  # ten blocks
    entries, totals, _ = coverage(name, method, passes, over, size=200, seeds=400)
    assert entries >= 0.92
    assert totals >= scipy.stats.binom.ppf(0.01, 400, 0.90) / 400


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_scipy(level):
    found = ntkest.diagonal(dense(), method="nystrom++", passes=30)
    share, degrees = found.law.share, found.law.degrees
    assert found.about["samples"] == 10
    assert (degrees >= 10).all()
    low, high = found.interval(level)
    upper, lower = (scipy.stats.chi2.ppf(q, degrees) for q in (0.5 + level / 2, 0.5 - level / 2))
    np.testing.assert_allclose(low, found.value * (share + (1 - share) * degrees / upper), rtol=1e-9)
    np.testing.assert_allclose(high, found.value * (share + (1 - share) * degrees / lower), rtol=1e-9)
    two = ntkest.diagonal(dense(), method="hutchinson", passes=30)
    low, high = two.interval(level)
    t = scipy.stats.t.ppf(0.5 + level / 2, 14)
    np.testing.assert_allclose(high, two.value + t * two.std_error, rtol=1e-9)
    positive = two.value > 0
    np.testing.assert_allclose(low[positive], np.maximum(two.value - t * two.std_error, 0)[positive], atol=1e-12)


# -- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("over", [(0,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_passes_reported_are_passes_made_and_no_more_than_allowed(method, over, by):
    for budget in ({"passes": 200}, {"rtol": 0.1, "max_passes": 150}):
        J = dense()
        found = ntkest.partial_trace(J, over, method=method, by=by, **budget)
        assert found.passes == J.pushed == found.n_jvp + found.n_vjp
        assert found.passes <= max(budget.values())


@pytest.mark.parametrize("method", ["forward", "reverse", "hutchinson"])
def test_little_memory_changes_nothing_but_rounding(method):
    J = ntkest.from_jacobian(A, SHAPE)
    calls = [ntkest.partial_trace(J, 1, method=method, passes=PASSES, by="layer", memory=m) for m in ("2GB", 100)]
    for name in ("value", "std_error"):
        np.testing.assert_allclose(*(getattr(found, name) for found in calls), rtol=1e-10)


def test_little_memory_means_fewer_columns():
    J = dense()
    found = ntkest.partial_trace(J, 1, method="nystrom++", passes=PASSES, memory=5 * 4 * 8 * 36)
    assert found.n_vjp == 5
    assert found.about["samples"] == PASSES - 10
    assert J.pushed == PASSES
    z = (found.value - traces(K, (1,))) / found.std_error
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("method", SAMPLING)
def test_growing_gives_what_drawing_all_at_once_gives(method):
    from ntkest.estimators import Counted, Problem
    from ntkest.partial.choice import SAMPLERS
    from ntkest.partial.task import Task
    from ntkest.tangents import group_parameters

    def run(cuts):
        J = ntkest.from_jacobian(A, SHAPE)
        problem = Problem.of((Counted(J),), groups=group_parameters(J.param_names, "layer"), needs=frozenset())
        task, sampler, state, cost = Task(problem, layout_over(J, 1), 3), SAMPLERS[method], None, 0
        for start, stop in itertools.pairwise(cuts):
            cost += sampler.growth(task, start, stop)
            state = sampler.extend(task, state, start, stop)
            assert problem.passes == cost
        return sampler.gathered(task, state)

    at_once, pieces = run((0, 13)), run((0, 4, 5, 13))
    assert pieces.spread.count == at_once.spread.count == 13
    np.testing.assert_allclose(pieces.spread.mean, at_once.spread.mean, rtol=1e-7, atol=1e-20)
    np.testing.assert_allclose(pieces.spread.squares, at_once.spread.squares, rtol=1e-7, atol=1e-20)
    if method == "nystrom++":
        np.testing.assert_allclose(pieces.known, at_once.known, rtol=1e-9)


# -- a tolerance, and the choice -------------------------------------------------------------------------------------


def spectrum(name, size=400):
    B = oracle.with_spectrum(oracle.spectra(size)[name], size)
    return ntkest.from_jacobian(B, (size // 10, 10)), (B**2).sum(axis=1).reshape(-1, 10)


@pytest.mark.parametrize("method", ["auto", "forward", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "power-2", "flat"])
def test_a_tolerance_is_met_for_each_entry_or_relative_to_the_mean(name, method):
    J, diagonal = spectrum(name)
    found = ntkest.partial_trace(J, 1, rtol=0.2, method=method, seed=2)
    wanted = diagonal.sum(axis=0)
    assert found.converged
    allowed = 0.2 * np.maximum(found.value, found.value.mean())
    assert (found.half_width <= allowed).all()
    assert (np.abs(found.value - wanted) <= 1.5 * allowed).all()


def test_an_absolute_tolerance_is_met():
    J, diagonal = spectrum("power-2")
    atol = 0.4 * diagonal.sum(axis=1).max()
    found = ntkest.partial_trace(J, 0, rtol=0, atol=atol, method="forward")
    assert found.converged
    assert (found.half_width <= atol).all()
    assert found.passes < ntkest.partial_trace(J, 0, rtol=0.1, method="forward").passes


def test_auto_takes_what_the_spectrum_asks_for():
    chosen = {name: ntkest.diagonal(spectrum(name)[0], rtol=0.2).method for name in ("exponential", "power-2", "flat")}
    assert chosen == {"exponential": "nystrom++", "power-2": "nystrom++", "flat": "hutchinson"}
    J, wanted = spectrum("power-1")
    found = ntkest.diagonal(J, rtol=0.01)
    assert found.method == "exact"
    assert "cost less than" in found.why
    assert found.passes <= 1.6 * 400
    np.testing.assert_allclose(found.value, wanted, rtol=1e-12)
    few = ntkest.partial_trace(spectrum("flat", 2000)[0], 1, rtol=0.2)
    assert few.method == "forward"
    assert few.passes <= 24


@pytest.mark.parametrize(("modes", "method"), [(("vjp",), "reverse"), (("jvp",), "forward")])
def test_auto_keeps_to_the_modes_that_there_are(modes, method):
    J = dense(modes=modes)
    for budget in ({"passes": 20}, {"max_passes": 20}):
        found = ntkest.partial_trace(J, 0, **budget)
        assert found.method == method
        assert "there is no" in found.why
        assert found.passes <= 20


def test_auto_with_a_fixed_cost():
    assert ntkest.diagonal(dense(), passes=24).method == "exact"
    assert ntkest.partial_trace(spectrum("flat")[0], 0, passes=60).method == "nystrom++"
    assert ntkest.partial_trace(spectrum("flat")[0], 0, passes=20).method == "forward"


@pytest.mark.slow
@pytest.mark.parametrize("over", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("name", ["exponential", "power-1", "power-2", "step", "flat", "rank-5"])
def test_auto_meets_its_tolerance(name, over):
    """98 % of the entries of 100 runs, at no more than 1.5 times what exact takes."""
    J, diagonal = spectrum(name, 600)
    wanted = diagonal if len(over) == 2 else diagonal.sum(axis=1 - over[0])
    within, passes = [], []
    for seed in range(100):
        found = ntkest.partial_trace(J, over, rtol=0.1, seed=seed)
        assert found.converged
        within.append(np.abs(found.value - wanted) <= 0.1 * np.maximum(wanted, wanted.mean()))
        passes.append(found.passes)
    assert np.mean(within) >= 0.98
    assert np.mean(passes) <= 1.5 * 600


def test_what_the_budget_cannot_reach_is_said():
    found = ntkest.diagonal(spectrum("power-1")[0], rtol=0.01, max_passes=100, method="forward")
    assert found.passes == 100
    assert not found.converged


def test_progress_is_told_and_an_interruption_keeps_what_is_done():
    told = []
    ntkest.diagonal(spectrum("power-1")[0], rtol=0.1, max_passes=120, progress=lambda *a: told.append(a))
    assert told[-1][0] == told[-1][1] <= 120

    J, _ = spectrum("power-1")
    calls = []
    original = J.map_jvp

    def map_jvp(*args, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **keywords)

    J.map_jvp = map_jvp
    found = ntkest.diagonal(J, rtol=0.01, max_passes=400, method="forward")
    assert found.about["interrupted"]
    assert found.about["samples"] == 32


# -- arrays, scales, backends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1.0, 1e8, 1e15])
@pytest.mark.parametrize("method", METHODS)
def test_rescaling_the_jacobian_rescales_in_float32(method, scale):
    J, Js = (ntkest.from_jacobian({n: (s * b).astype(np.float32) for n, b in A.items()}, SHAPE) for s in (1.0, scale))
    keywords = {"method": method, "passes": PASSES}
    reference, found = ntkest.partial_trace(J, 1, **keywords), ntkest.partial_trace(Js, 1, **keywords)
    assert found.value.dtype == found.std_error.dtype == np.float32
    np.testing.assert_allclose(found.value.astype(float) / scale**2, reference.value, rtol=2e-5)
    np.testing.assert_allclose(found.std_error.astype(float) / scale**2, reference.std_error, rtol=1e-3)
    np.testing.assert_allclose(
        np.stack(found.interval()).astype(float) / scale**2, np.stack(reference.interval()), rtol=1e-3
    )


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_to_the_standard_and_to_its_device(method, device):
    if device != "CPU_DEVICE" and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("array_api_strict cannot leave its second device on NumPy 1")
    where = array_api_strict.Device(device)
    blocks = {name: array_api_strict.asarray(block, device=where) for name, block in A.items()}
    for budget in ({"passes": PASSES}, {"rtol": 0.3}):
        keywords = {"method": method, "by": "layer", "centered": True, **budget}
        found = ntkest.partial_trace(ntkest.from_jacobian(blocks, SHAPE), (2, 0), **keywords)
        wanted = ntkest.partial_trace(ntkest.from_jacobian(A, SHAPE), (2, 0), **keywords)
        low, high = found.interval()
        for array in (found.value, found.std_error, found.half_width, low, high, found.parts["b"].value):
            assert array.device == where
            assert array.shape == (2, 3)
        np.testing.assert_allclose(to_host(found.value), wanted.value, rtol=1e-9)
        np.testing.assert_allclose(to_host(found.std_error), wanted.std_error, rtol=1e-6)
        np.testing.assert_allclose(to_host(high), wanted.interval()[1], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_framework_gives_the_numbers_of_the_explicit_jacobian(method, framework):
    net = network((5, 8, 3), seed=3, N=6, dtype="float32")
    assert framework in FRAMEWORKS
    keywords = {"method": method, "passes": 29 if method == "reverse" else 17, "seed": 1}
    found = ntkest.partial_trace(linearized(net, framework), "example", **keywords)
    wanted = ntkest.partial_trace(linearized(net, "dense-numpy"), 0, **keywords)
    assert found.names == ("example",)
    assert found.passes == wanted.passes
    np.testing.assert_allclose(to_host(found.value), wanted.value, rtol=1e-4)
    np.testing.assert_allclose(to_host(found.std_error), wanted.std_error, rtol=1e-2)


# -- the result ------------------------------------------------------------------------------------------------------


def test_a_result_prints_converts_and_serialises():
    found = ntkest.partial_trace(
        dense(), ("unit", "example"), axes=AXES, method="forward", passes=20, seed=3, by="layer"
    )
    assert found.names == ("unit", "example")
    assert str(found).startswith("partial traces over unit, example: 2 × 3")
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["value"] == found.value.tolist()
    assert plain["interval_95"][1] == found.interval(0.95)[1].tolist()
    assert plain["over"] == [2, 0]
    assert plain["seed"] == 3
    assert plain["samples"] == 10
    assert plain["total"]["value"] == float(found.total)
    assert plain["parts"]["b"]["value"] == found.parts["b"].value.tolist()
    assert str(ntkest.diagonal(ntkest.from_jacobian(np.ones((1, 3)), ()))).startswith("partial traces over no axis")


def test_plots_show_one_axis_or_two():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    J = ntkest.from_jacobian(whole(A), SHAPE)
    ax = ntkest.partial_trace(J, "time", axes=AXES, passes=20).plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time", "trace")
    ax = ntkest.partial_trace(J, (0, 1), passes=20).plot()
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("example", "axis 1")
    assert ax.images[0].get_array().shape == (3, 4)
    many = ntkest.diagonal(ntkest.from_jacobian(np.ones((100, 3)))).plot()
    assert len(many.lines[0].get_xdata()) == 100
    with pytest.raises(ntkest.NTKError, match="one axis or two, not 3"):
        ntkest.diagonal(J).plot()
    matplotlib.pyplot.close("all")


# -- bad input -------------------------------------------------------------------------------------------------------

V, T, R = ValueError, TypeError, RuntimeError


def partial(over=0, J=None, **keywords):
    return lambda: ntkest.partial_trace(dense() if J is None else J, over, **keywords)


WRONG = {
    "not a linearization": (T, "linearization is needed", lambda: ntkest.partial_trace(whole(A), 0)),
    "not a linearization's diagonal": (T, "linearization is needed", lambda: ntkest.diagonal(whole(A))),
    "an axis that is not there": (V, "not an axis of the outputs", partial(3)),
    "an axis below": (V, "not an axis of the outputs", partial(-4)),
    "no axis": (V, "ntkest.trace", partial(())),
    "an axis twice": (V, "twice", partial((0, -3))),
    "a fractional axis": (T, "axis number or name", partial(1.0)),
    "true": (T, "axis number or name", partial(True)),
    "an unknown name": (V, "names here: 'example'", partial("time")),
    "a misspelt name": (V, "names here: 'example', 'time', 'unit'", partial("times", axes=AXES)),
    "unknown examples": (V, "batch_axis=", partial("example", ntkest.from_jacobian(whole(A)))),
    "names of another number": (V, "has 2 names", partial(0, axes=("example", "time"))),
    "the same name twice": (V, "same name twice", partial(0, axes=("a", "b", "a"))),
    "one string of names": (T, "tuple of names", partial(0, axes="abc")),
    "numbers for names": (T, "tuple of names", partial(0, axes=(0, 1, 2))),
    "examples elsewhere": (V, "run along axis 0", partial(0, axes=("time", "example", "unit"))),
    "unknown method": (V, "one of auto, exact, forward", partial(method="xtrace")),
    "rtol zero": (V, "rtol=", partial(rtol=0)),
    "passes of a float": (T, "passes=", partial(passes=10.0)),
    "too few passes": (V, "passes=3 is too few", partial(passes=3, method="forward")),
    "too few passes for all blocks": (V, "values and error bars take 12", partial(passes=11, method="reverse")),
    "too few passes for the diagonal": (
        V,
        "each of the 24 outputs",
        lambda: ntkest.diagonal(dense(), method="reverse", passes=23),
    ),
    "too small a bound": (V, "max_passes=11 is too few", partial(max_passes=11, method="nystrom++")),
    "seed negative": (V, "seed=", partial(seed=-1)),
    "unknown by": (V, "by=", partial(by="neuron")),
    "unknown centring": (V, "centered=", partial(centered="rows")),
    "memory of text": (V, "memory=", partial(memory="lots")),
    "forward without JVP": (R, "no jvp", partial(0, dense(modes=["vjp"]), method="forward", passes=9)),
    "Nyström without VJP": (R, "no vjp", partial(0, dense(modes=["jvp"]), method="nystrom++", passes=30)),
    "reverse without VJP": (R, "no vjp", partial((0, 1, 2), dense(modes=["jvp"]), method="reverse", passes=99)),
    "beyond float32": (
        V,
        "float64",
        lambda: ntkest.diagonal(ntkest.from_jacobian(np.full((4, 4), 1e30, dtype=np.float32)), method="exact"),
    ),
    "a level of 95": (V, "between 0 and 1", lambda: ntkest.diagonal(dense()).interval(95)),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_has_its_own_clear_error(case):
    kind, message, call = WRONG[case]
    with pytest.raises(ntkest.NTKError, match=message) as raised:
        call()
    assert isinstance(raised.value, kind)
    assert 20 < len(str(raised.value)) < 400


def test_names_reach_the_same_axes_as_numbers():
    J = ntkest.from_jacobian(A, SHAPE)
    by_number = ntkest.partial_trace(J, (2, 0), passes=24)
    for over in (("unit", "example"), (-1, "example"), ["unit", 0]):
        named = ntkest.partial_trace(J, over, axes=AXES, passes=24)
        np.testing.assert_array_equal(named.value, by_number.value)
    assert ntkest.partial_trace(J, -1, passes=24).over == (2,)
