"""The scikit-learn estimators: its own checks, and the kernels behind them."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ntkest
from ntkest import predict
from ntkest.sklearn import TangentKernelClassifier, TangentKernelRidge
from ntkest.sklearn.network import BIAS, FullyConnected, draw_layers
from ntkest.testing import check_linearization
from tests.networks import available, linearized, network

DRAW = np.random.default_rng(0)
SMALL = {"widths": (16,)}

EXCEPTIONS = {}
"""Names of scikit-learn's checks that cannot hold, with the reason. There are none."""


@parametrize_with_checks(
    [TangentKernelRidge(), TangentKernelClassifier()],
    expected_failed_checks=lambda _: EXCEPTIONS,
)
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


def by_hand(layers, x):
    """Outputs (N, O) and Jacobian (N·O, P), one output at a time."""
    hidden, slopes = [x], []
    for i, (weight, bias) in enumerate(layers):
        h = hidden[-1] @ weight / np.sqrt(len(weight)) * (np.sqrt(2) if i < len(layers) - 1 else 1) + BIAS * bias
        slopes.append(h > 0)
        hidden.append(np.maximum(h, 0) if i < len(layers) - 1 else h)
    rows = []
    for n, o in np.ndindex(hidden[-1].shape):
        delta, blocks = np.eye(hidden[-1].shape[1])[o], []
        for i in reversed(range(len(layers))):
            gain = np.sqrt(2 if i < len(layers) - 1 else 1) / np.sqrt(len(layers[i][0]))
            blocks[:0] = [gain * np.outer(hidden[i][n], delta).ravel(), BIAS * delta]
            delta = gain * layers[i][0] @ delta
            if i:
                delta = delta * slopes[i - 1][n]
        rows.append(np.concatenate(blocks))
    return hidden[-1], np.stack(rows)


@pytest.fixture
def default():
    """The network of the estimators on some inputs, and the same by hand."""
    layers, x = draw_layers((3, 6, 5, 2), np.random.RandomState(0)), DRAW.standard_normal((4, 3))
    return FullyConnected(layers, x), *by_hand(layers, x)


def test_the_default_network_has_the_derivatives_by_hand(default):
    J, outputs, A = default
    np.testing.assert_allclose(J.outputs, outputs)
    np.testing.assert_allclose(np.concatenate(J.vjp(np.eye(8)), axis=1), A, atol=1e-12)
    for kind in ("full", "trace", "sum"):
        explicit = ntkest.ntk(ntkest.from_jacobian(A, (4, 2)), outputs=kind)
        np.testing.assert_allclose(ntkest.ntk(J, outputs=kind), explicit, atol=1e-12)


def test_the_default_network_is_a_linearization_like_any_other(default):
    check_linearization(default[0])


def test_its_kernel_has_a_limit_as_it_grows_wide():
    x = DRAW.standard_normal((6, 3))
    diagonals = [
        np.diagonal(ntkest.pntk(FullyConnected(draw_layers((3, width, 2), np.random.RandomState(1)), x)))
        for width in (2000, 8000)
    ]
    np.testing.assert_allclose(*diagonals, rtol=0.15)


@pytest.mark.parametrize("outputs", ["sum", "trace", "full", 1])
def test_predictions_are_those_of_the_kernel(outputs):
    x, there, y = DRAW.standard_normal((12, 3)), DRAW.standard_normal((5, 3)), DRAW.standard_normal((12, 2))
    model = TangentKernelRidge(widths=(16, 8), outputs=outputs, alpha=0.01, random_state=3).fit(x, y)
    layers = draw_layers((3, 16, 8, 2), np.random.RandomState(3))
    K = ntkest.ntk(FullyConnected(layers, x), outputs=outputs)
    cross = ntkest.ntk(FullyConnected(layers, there), FullyConnected(layers, x), outputs=outputs)
    fit = predict.kernel_ridge(K, y - y.mean(axis=0), 0.01 * float(np.mean(np.diagonal(K))))
    np.testing.assert_allclose(model.predict(there), fit.predict(cross) + y.mean(axis=0))
    assert model.alpha_ == pytest.approx(0.01)


def test_the_ridge_is_chosen_by_leaving_out():
    x = DRAW.standard_normal((40, 3))
    y = np.sin(2 * x[:, 0]) + 0.3 * DRAW.standard_normal(40)
    chosen = TangentKernelRidge(**SMALL).fit(x, y)
    K = ntkest.ntk(FullyConnected(draw_layers((3, 16, 1), np.random.RandomState(0)), x), outputs="sum")
    fit = predict.kernel_ridge(K, y - y.mean())
    assert chosen.alpha_ == pytest.approx(fit.ridge / np.mean(np.diagonal(K)))


def test_a_seed_repeats_and_another_does_not():
    x, y = load_diabetes(return_X_y=True)
    first, again, other = (TangentKernelRidge(**SMALL, random_state=s).fit(x, y).predict(x[:5]) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_it_reads_digits_in_a_pipeline():
    x, y = load_digits(return_X_y=True)
    model = make_pipeline(MinMaxScaler(), TangentKernelClassifier(widths=(256,)))
    assert cross_val_score(model, x, y, cv=3).mean() > 0.95


def test_a_grid_search_goes_over_everything_but_the_data():
    x, y = load_digits(n_class=3, return_X_y=True)
    x, y = x[:90], np.array(["zero", "one", "two"])[y[:90]]
    grid = {"tangent__alpha": [1e-3, "loo"], "tangent__outputs": ["sum", "full"], "tangent__widths": [(32,), (32, 32)]}
    pipeline = Pipeline([("scale", MinMaxScaler()), ("tangent", TangentKernelClassifier())])
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, y)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ > 0.9
    assert set(search.predict(x)) == {"zero", "one", "two"}


@pytest.mark.parametrize("name", available())
def test_a_network_of_any_framework(name):
    """Given as a function of the inputs; its kernel is what is used."""
    net = network((3, 10, 2), N=9)
    there = network((3, 10, 2), N=4)
    there.x[:] = DRAW.standard_normal(there.x.shape)
    known = {9: net, 4: there}
    y = DRAW.standard_normal((9, 2))
    model = TangentKernelRidge(lambda X: linearized(known[len(X)], name), alpha=0.1, outputs="full").fit(net.x, y)
    A, B = net.jacobian(), there.jacobian()
    ridge = 0.1 * np.trace(A @ A.T) / 18
    solved = np.linalg.solve(A @ A.T + ridge * np.eye(18), (y - y.mean(axis=0)).ravel())
    wanted = (B @ A.T @ solved).reshape(4, 2) + y.mean(axis=0)
    np.testing.assert_allclose(model.predict(there.x), wanted, atol=1e-3 if name == "jax" else 1e-9)


@pytest.mark.parametrize("kind", [TangentKernelRidge, TangentKernelClassifier])
def test_it_comes_back_from_a_pickle_and_clones_unfitted(kind):
    x, y = DRAW.standard_normal((20, 3)), np.arange(20) % 2
    model = kind(**SMALL, alpha=0.1).fit(x, y)
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.predict(x), model.predict(x))
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "alpha_")


def test_two_classes_have_one_decision():
    x, y = DRAW.standard_normal((30, 3)), np.array(["no", "yes"])[np.arange(30) % 2]
    model = TangentKernelClassifier(**SMALL).fit(x, y)
    decision = model.decision_function(x)
    assert decision.shape == (30,)
    np.testing.assert_array_equal(model.predict(x), model.classes_[(decision > 0).astype(int)])


def test_many_test_inputs_go_in_parts(monkeypatch):
    x, y = DRAW.standard_normal((20, 3)), DRAW.standard_normal(20)
    model = TangentKernelRidge(**SMALL).fit(x, y)
    there = DRAW.standard_normal((31, 3))
    whole = model.predict(there)
    monkeypatch.setattr("ntkest.sklearn.estimators.ENTRIES", 7 * 20)
    np.testing.assert_allclose(model.predict(there), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "not negative"),
        ({"alpha": None}, "alpha= takes"),
        ({"alpha": "best"}, "'loo' or a number"),
        ({"widths": (0,)}, "widths= takes"),
        ({"widths": 5}, "widths= takes"),
        ({"outputs": "some"}, "outputs= takes"),
    ],
)
def test_bad_parameters_say_so_when_fitted(options, message):
    with pytest.raises(ntkest.NTKError, match=message):
        TangentKernelRidge(**options).fit(np.ones((4, 2)), np.arange(4.0))
