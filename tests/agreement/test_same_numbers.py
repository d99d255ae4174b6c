"""The same network, weights, data and seed give the same estimates in every framework and by the explicit Jacobian."""

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ntkest
from ntkest.estimators import ESTIMATORS, METHODS
from tests.networks import FRAMEWORKS, linearized, network

BACKENDS = ("dense-numpy", "dense-strict", *FRAMEWORKS)
QUANTITIES = (ntkest.trace, ntkest.frobenius_norm, ntkest.effective_rank)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def as_floats(estimate):
    return [float(estimate), float(estimate.std_error), *estimate.interval(0.9), *map(float, estimate.parts.values())]


SKETCHES = ("xnystrace", "xtrace", "xtrace-power")

networks = st.builds(
    network,
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    seed=st.integers(0, 10**6),
    activation=st.sampled_from(["tanh", "sin", "relu"]),
    N=st.integers(1, 5),
)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(net=networks, seed=st.integers(0, 2**64 - 1), method=st.sampled_from(METHODS), data=st.data())
def test_the_same_estimates_everywhere(net, seed, method, data):
    """In float64, to rounding: values, error bars, intervals, passes, layers; and the alignment of two networks."""
    quantity = data.draw(st.sampled_from(QUANTITIES))
    by = "layer" if method not in ESTIMATORS or ESTIMATORS[method].parts else None
    parameters = sum(array.size for layer in net.params for array in layer)
    if method in SKETCHES and min(net.x.shape[0] * net.params[-1][1].shape[0], parameters) < 4:
        return  # of a rank below 4, which they refuse
    if method == "reverse-by-example" and len(net.x) < 2:
        return  # one example is not recognised as one of several
    other = network((net.x.shape[1], net.params[-1][1].shape[0]), seed=7, N=len(net.x))
    found = {}
    for backend in BACKENDS:
        J, J2 = linearized(net, backend), linearized(other, backend)
        if backend == BACKENDS[0] and not float(ntkest.trace(J, method="exact")) > 1e-12:
            return  # every unit of a ReLU net may be off
        first = quantity(J, method=method, passes=60, seed=seed, by=by)
        second = ntkest.alignment(J, J2, method=method, passes=120, seed=seed)
        numbers = as_floats(first) + as_floats(second)
        found[backend] = (first.passes, second.passes), (first.method, second.method), numbers
        exhausted = first.method in SKETCHES and first.about["samples"] == net.x.shape[0] * net.params[-1][1].shape[0]
    costs, chosen, reference = found[BACKENDS[0]]
    for backend, (passes, methods, numbers) in found.items():
        if methods != chosen:  # exact is cheaper where layers give factors
            assert method == "auto"
            assert "exact" in methods
            continue
        assert passes == costs or "exact" in methods, backend
        # the geometric mean of two error bars makes the root of a rounding error where the result is exact
        least = (1e-7 if method in (*SKETCHES, "auto") else 1e-9) * max(map(abs, reference))
        # columns beyond the rank come from combs of eps^(2/3), turned by some eps^(1/3) = 6e-6: error bars see that
        bars = [1, len(numbers) - len(as_floats(second)) + 1] if method in ("nystrom++", "adaptive-hutch++") else []
        loose = (bars, 1e-4, least)
        if exhausted:  # of as many probes as outputs the condition number decides how large rounding errors get
            loose = ([1, 2, 3, 5, 6, 7], 1e-6, 1e3 * least)
        for places, rtol, atol in ((np.delete(np.arange(len(numbers)), loose[0]), 1e-6, least), loose):
            here, there = (np.asarray(side)[places] for side in (numbers, reference))
            np.testing.assert_allclose(here, there, rtol=rtol, atol=atol, err_msg=backend)


@pytest.mark.parametrize("method", METHODS)
def test_values_agree_to_many_digits_on_one_network(method):
    net = network((5, 8, 3), seed=3, N=6)
    values = {}
    for backend in BACKENDS:
        J = linearized(net, backend)
        values[backend] = [float(q(J, method=method, passes=50, seed=1)) for q in QUANTITIES]
    for backend, numbers in values.items():
        np.testing.assert_allclose(numbers, values["dense-numpy"], rtol=1e-10, err_msg=backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_stay_in_the_namespace_and_dtype_of_the_model(dtype):
    import torch

    net = network((5, 8, 3), N=6, dtype=dtype)
    kinds = {"numpy": np.ndarray | np.generic, "torch": torch.Tensor, "jax": jax.Array}
    for backend, kind in kinds.items():
        estimate = ntkest.summary(linearized(net, backend), passes=30)["effective_rank"]
        assert isinstance(estimate.value, kind)
        assert isinstance(estimate.std_error, kind)
        assert str(estimate.value.dtype).endswith(dtype)
        assert tuple(estimate.value.shape) == ()


def test_float32_agrees_to_its_digits():
    net = network((5, 8, 3), seed=3, N=6, dtype="float32")
    for method in METHODS:
        values = [float(ntkest.trace(linearized(net, b), method=method, passes=50)) for b in BACKENDS]
        np.testing.assert_allclose(values, values[0], rtol=2e-5)


def test_a_batch_stream_agrees_with_the_whole_in_every_framework():
    net = network((4, 6, 3), seed=1, N=7)
    for backend in FRAMEWORKS:
        whole = linearized(net, backend)
        params, x, forward = _function_form(net, backend)
        streamed = ntkest.linearize_batches(forward, params, [x[:3], x[3:6], x[6:]], batch_axis=0)
        for quantity in QUANTITIES:
            for method in ("exact", "reverse"):
                a, b = (quantity(J, method=method, passes=60) for J in (whole, streamed))
                assert float(b) == pytest.approx(float(a), rel=1e-9), (backend, quantity, method)


def _function_form(net, backend):
    from tests.networks import _tools

    as_array, activation = _tools(backend, net.activation)

    def forward(params, x):
        for weight, bias in params[:-1]:
            x = activation(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return [(as_array(w), as_array(b)) for w, b in net.params], as_array(net.x), forward
