"""Partial traces and diagonals against explicit kernels: values, arrays of every kind, results, and bad input."""

import json

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.partial.choice import METHODS
from ntkest.partial.layout import Layout
from ntkest.testing.host import to_host
from tests import oracle
from tests.networks import FRAMEWORKS, linearized, network
from tests.partial_cases import AXES, LAYERS, OVER, PASSES, SAMPLING, SHAPE, A, K, M, dense, traces, whole


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
