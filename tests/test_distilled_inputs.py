"""New inputs, tuned through tangent kernels or made from features, in every framework that differentiates."""

import array_api_compat
import numpy as np
import pytest

import ntkest
from ntkest.distilled.points.adam import Adam
from ntkest.distilled.points.descent import descend
from ntkest.distilled.points.exact import class_kernels, gradients, square_norms
from ntkest.distilled.points.objectives import Induced, Residual, Seen
from ntkest.distilled.points.problem import posed
from ntkest.distilled.points.stages import as_stage
from ntkest.distilled.points.targets import Targets
from ntkest.distilled.points.tuning import Tuned
from ntkest.distilled.points.wasserstein import Wasserstein
from ntkest.linearization import (
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    UnsupportedModeError,
    beside,
    find_backend,
    host,
)
from tests.conftest import BACKENDS
from tests.networks import Network, functional, network

RIDGE = 1e-3


@pytest.fixture(params=[name for name in ("torch", "jax") if name in BACKENDS])
def differentiating(request):
    """The name of a framework whose adapter differentiates through kernels, in double precision."""
    if request.param != "jax":
        yield request.param
        return
    import jax

    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # tiny models need no good programs
    before = {name: jax.config.read(name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield request.param
    for name, value in before.items():
        jax.config.update(name, value)


def made(N=24, classes=2, seed=0, dtype="float64"):
    """A network with labelled inputs in as many clouds as there are classes."""
    net = network((3, 6, classes), seed=seed, N=N, dtype=dtype)
    labels = np.arange(N) % classes
    return Network(net.params, (net.x + 1.5 * np.eye(3)[labels]).astype(dtype), net.activation), labels


def problem(net, labels, framework, count=2, **options):
    f, params, x = functional(net, framework)
    return posed(f, params, x, labels=labels, count=count, **options)


def tangents(net, x):
    """φ (O, n, P) by hand."""
    there = Network(net.params, np.asarray(x, dtype=np.float64), net.activation)
    return there.jacobian().reshape(len(x), -1, there.jacobian().shape[1]).transpose(1, 0, 2), there.outputs()


def naive(net, points, targets, loss, ridge, values=None):
    """The objectives by their definitions, one class at a time."""
    own, outputs = tangents(net, points)
    phi, wanted = tangents(net, targets)
    values = outputs if values is None else values
    over = under = 0.0
    for c in range(len(phi)):
        K = own[c] @ own[c].T
        inverse = np.linalg.inv(K + ridge * np.trace(K) / len(K) * np.eye(len(K)))
        k = phi[c] @ own[c].T
        if loss == "residual":
            over += np.trace(phi[c] @ phi[c].T - k @ inverse @ k.T)
            under += np.trace(phi[c] @ phi[c].T)
        else:
            over += np.sum((wanted[:, c] - k @ inverse @ values[:, c]) ** 2)
            under += np.sum(wanted[:, c] ** 2)
    return over / under


def test_class_kernels_are_those_of_explicit_jacobians(differentiating):
    net, labels = made(N=9)
    posed = problem(net, labels, differentiating)
    J, other = (posed.linearize(posed.inputs[a:b]) for a, b in ((0, 5), (5, 9)))
    phi, _ = tangents(net, net.x)
    left, right = phi[:, :5], phi[:, 5:]
    np.testing.assert_allclose(host(class_kernels(J, gradients(J))), left @ left.transpose(0, 2, 1), rtol=1e-9)
    cross = class_kernels(J, gradients(J), gradients(other))
    np.testing.assert_allclose(host(cross), left @ right.transpose(0, 2, 1), rtol=1e-9)
    np.testing.assert_allclose(host(square_norms(J)), np.sum(left**2, axis=(0, 2)), rtol=1e-9)


@pytest.mark.parametrize("loss", ["residual", "inducing"])
def test_objectives_and_their_gradients_are_those_of_the_definition(differentiating, loss):
    net, labels = made(N=12)
    posed = problem(net, labels, differentiating)
    x = posed.inputs
    points = x[:3] + 0.1
    other = posed.linearize(x[4:])
    phi, outputs = tangents(net, net.x[4:])
    squares = np.sum(phi**2, axis=(0, 2))
    whole = beside(other.xp, [squares.mean(), np.sum(outputs**2) / len(outputs)], other.outputs)
    seen = Seen(gradients(other), other.outputs, square_norms(other), whole)
    objective = (Residual if loss == "residual" else Induced)(RIDGE)

    def value(arrays, seen):
        J = posed.linearize(arrays[0], check=False, differentiable=True)
        return objective(J, gradients(J), J.outputs, seen)

    evaluated = find_backend(posed.target, posed.before).value_and_gradient(value)
    found, (gradient,) = evaluated((points,), seen)
    at = host(points)
    assert float(found) == pytest.approx(naive(net, at, net.x[4:], loss, RIDGE), rel=1e-9)
    wanted = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-5
        ends = [naive(net, at + s * step, net.x[4:], loss, RIDGE) for s in (1, -1)]
        wanted[index] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(host(gradient), wanted, rtol=1e-5, atol=1e-8 * np.abs(wanted).max())


@pytest.mark.parametrize("loss", ["residual", "inducing"])
def test_tuned_inputs_do_better_than_those_they_start_from_on_others_too(differentiating, loss):
    net, labels = made(N=40)
    start = as_stage("kmeans")(problem(net, labels, differentiating))
    points = Tuned(loss, steps=40, start="kmeans", ridge=RIDGE)(problem(net, labels, differentiating))
    assert points.labels.tolist() == [0, 0, 1, 1]
    assert points.indices is None
    assert points.history[-1] == min(points.history) < 0.8 * points.history[0]
    assert len(points.history) == 1 + 4
    others = np.setdiff1d(np.arange(40), start.indices)
    ends = [naive(net, host(p.inputs), net.x[others], loss, RIDGE) for p in (start, points)]
    assert [points.history[0], min(points.history)] == pytest.approx(ends, rel=1e-6)
    fresh, _ = made(N=200, seed=0)
    fresh.x[:] = np.random.default_rng(5).permutation(fresh.x)
    held = [naive(net, host(p.inputs), fresh.x, loss, RIDGE) for p in (start, points)]
    assert held[1] < 0.9 * held[0]


def test_the_seed_says_which_inputs_come_out(differentiating):
    net, labels = made()
    runs = [
        Tuned(steps=5, start="uniform", batch=6)(problem(net, labels, differentiating, seed=seed)) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(host(runs[0].inputs), host(runs[1].inputs))
    assert runs[0].history == runs[1].history
    assert runs[0].history != runs[2].history


def test_gradients_that_memory_has_no_room_for_are_computed_again(differentiating):
    net, labels = made()
    spent = {}
    for memory in ("1GB", 1):
        points = Tuned(steps=4, start="uniform", batch=10, memory=memory)(problem(net, labels, differentiating))
        spent[memory] = points
    np.testing.assert_allclose(host(spent["1GB"].inputs), host(spent[1].inputs), rtol=1e-9)
    outputs, points, batches, examples, steps, looks = 2, 4, 2, 20, 4, 2
    own = (steps + looks) * points * outputs
    assert spent["1GB"].gradients == own + 2 * examples * outputs  # squares, and gradients once
    assert spent[1].gradients == own + examples * outputs + (steps + looks * batches) * 10 * outputs
    assert spent["1GB"].passes == (3 * steps + looks) * points * (outputs + 1) + 2 * examples * (outputs + 1)


def test_learned_values_come_with_the_points_and_are_what_predicts(differentiating):
    net, labels = made(N=40)
    settings = {"steps": 30, "start": "kmeans", "ridge": RIDGE}
    assert Tuned("inducing", **settings)(problem(net, labels, differentiating)).targets is None
    points = Tuned("inducing", learned=True, **settings)(problem(net, labels, differentiating))
    assert tuple(points.targets.shape) == (4, 2)
    assert min(points.history) < 0.5 * points.history[0]
    start = as_stage("kmeans")(problem(net, labels, differentiating))
    others = np.setdiff1d(np.arange(40), start.indices)
    by_values = naive(net, host(points.inputs), net.x[others], "inducing", RIDGE, host(points.targets))
    by_outputs = naive(net, host(points.inputs), net.x[others], "inducing", RIDGE)
    assert min(points.history) == pytest.approx(by_values, rel=1e-6)
    assert by_values < by_outputs


@pytest.mark.parametrize("stage", [Tuned, Wasserstein])
def test_inputs_are_kept_between_bounds(differentiating, stage):
    net, labels = made()
    points = stage(steps=20, rate=0.5, bounds=(-1.0, 0.5))(problem(net, labels, differentiating))
    assert host(points.inputs).min() >= -1.0
    assert host(points.inputs).max() <= 0.5


def test_features_decide_where_tuning_starts(differentiating):
    net, labels = made()
    features = np.zeros((24, 1, 4))
    features[np.arange(24), 0, np.arange(24) // 6] = 1.0
    features[:2] *= 100
    posed = problem(net, labels, differentiating, features=features)
    points = Tuned(steps=1, start="rpcholesky", rate=1e-9)(posed)
    chosen = as_stage("rpcholesky")(posed).indices
    np.testing.assert_allclose(host(points.inputs), net.x[chosen], atol=1e-6)
    best = Tuned(steps=1, rate=1e-9)(posed)
    nearest = np.linalg.norm(host(best.inputs)[:, None] - net.x[None], axis=2)
    assert set(nearest.argmin(axis=1)) >= {0, 1}


def test_progress_is_told(differentiating):
    net, labels = made()
    told = []
    report = lambda done, steps: told.append((done, steps))  # noqa: E731
    Tuned(steps=3, start="uniform")(problem(net, labels, differentiating, progress=report))
    Wasserstein(steps=2)(problem(net, labels, differentiating, progress=report))
    assert told == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]


def test_wasserstein_inputs_have_the_features_of_the_centres_of_their_class(differentiating):
    net, labels = made(N=40)
    posed = problem(net, labels, differentiating, count=3)
    xp = array_api_compat.array_namespace(posed.inputs)
    turn = beside(xp, [[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]], posed.inputs)
    points = Wasserstein(features=lambda x: x @ turn, steps=200, rate=0.05)(posed)
    assert points.history[-1] < 1e-3 * points.history[0]
    assert points.notes == ("no batch norm was seen, so that statistics of none are matched",)
    features, found = net.x @ np.asarray(host(turn)), host(points.inputs) @ np.asarray(host(turn))
    for label in (0, 1):
        own, atoms = features[labels == label], found[3 * label : 3 * label + 3]
        nearest = np.linalg.norm(own[:, None] - atoms[None], axis=2).argmin(axis=1)
        means = np.stack([own[nearest == j].mean(axis=0) for j in range(3)])
        np.testing.assert_allclose(atoms, means, atol=0.05)
        shares = np.bincount(nearest, minlength=3) / len(own)
        np.testing.assert_allclose(points.weights[3 * label : 3 * label + 3], shares)


def test_without_features_of_their_own_functions_are_seen_by_their_outputs(differentiating):
    net, labels = made()
    points = Wasserstein(steps=100, norms=0)(problem(net, labels, differentiating))
    assert points.notes == ("features are the outputs of the model: no hidden representation is known; give features=",)
    assert points.gradients == 0
    assert points.history[-1] < 0.1 * points.history[0]


def test_features_without_a_row_for_each_example_are_refused(differentiating):
    net, labels = made()
    with pytest.raises(ShapeError, match="one row an example"):
        Wasserstein(features=lambda x: x[:1])(problem(net, labels, differentiating))


@pytest.mark.parametrize("stage", ["wasserstein", "tangent", "inducing"])
def test_adapters_that_differentiate_no_kernels_say_so(stage):
    if "numpy" not in BACKENDS:
        pytest.skip("needs autograd")
    net, labels = made()
    with pytest.raises(UnsupportedModeError, match="torch or jax"):
        as_stage(stage)(problem(net, labels, "numpy"))


@pytest.mark.parametrize("stage", ["wasserstein", "tangent", "inducing"])
def test_integers_are_moved_by_no_gradient(stage):
    with pytest.raises(NonDifferentiableError, match="int64"):
        as_stage(stage)(posed(len, np.ones((4, 2), dtype=np.int64), labels=[0, 0, 1, 1], count=1))


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"loss": "hinge"}, InvalidValueError, "'residual' or 'inducing'"),
        ({"learned": True}, InvalidValueError, "goes with loss='inducing'"),
        ({"start": "nearest"}, InvalidValueError, "'uniform', 'kmeans'"),
        ({"steps": 0}, InvalidValueError, "steps="),
        ({"batch": 2.5}, InvalidTypeError, "batch="),
        ({"rate": 0}, InvalidValueError, "rate="),
        ({"ridge": -1.0}, InvalidValueError, "ridge="),
    ],
)
def test_settings_that_make_no_sense_are_refused(keywords, error, match):
    with pytest.raises(error, match=match):
        Tuned(**keywords)


def test_batches_are_of_one_size_and_each_epoch_has_all_of_them(framework):
    net, labels = made(N=23 + 1)
    targets = Targets(problem(net, labels, framework), np.arange(1, 24), batch=5, memory=10**9)
    assert [len(b) for b in targets.batches] == [5] * 4
    assert len(set(np.concatenate(targets.batches))) == 20
    assert 0 not in np.concatenate(targets.batches)
    order = targets.order(10)
    assert sorted(order[:4]) == sorted(order[4:8]) == [0, 1, 2, 3]


def test_adam_is_that_of_the_paper_with_a_cosine():
    adam = Adam(0.1, 5, (0.8, 0.9))
    x, state = (np.array([1.0, -2.0]),), adam.start((np.zeros(2),))
    wanted, m, v = x[0].copy(), np.zeros(2), np.zeros(2)
    for t in range(5):
        g = wanted * [1.0, 3.0]
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        rate = 0.1 * (1 + np.cos(np.pi * t / 5)) / 2
        wanted = wanted - 2.0 * rate * (m / (1 - 0.8 ** (t + 1))) / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 1e-8)
        x, state = adam.step(x, (x[0] * np.array([1.0, 3.0]),), state, (2.0,), t)
        np.testing.assert_allclose(x[0], wanted, rtol=1e-12)


def test_descent_keeps_the_best_and_turns_back_when_gradients_mislead():
    asked = []

    def uphill(arrays, i):
        asked.append(float(arrays[0][0]))
        return (-arrays[0],)

    start = np.array([1.0])
    best, history = descend((start,), uphill, lambda a: float(a[0][0] ** 2), Adam(0.1, 40), (1.0,), look=2)
    assert best[0][0] == 1.0
    assert history[0] == min(history) == 1.0
    assert asked.count(1.0) > 3  # from the start again, each time
    assert max(asked) < 2.0


def test_descent_gets_to_the_bottom():
    best, history = descend(
        (np.array([1.0, -0.5]),),
        lambda a, i: (2 * a[0],),
        lambda a: float(np.sum(a[0] ** 2)),
        Adam(0.05, 200),
        (1.0,),
        look=10,
    )
    assert np.abs(best[0]).max() < 1e-3
    assert len(history) == 21


def test_descent_refuses_a_start_without_a_value():
    with pytest.raises(NonFiniteError, match="raise the ridge"):
        descend((np.ones(1),), lambda a, i: a, lambda a: float("nan"), Adam(0.1, 2), (1.0,), look=1)


def test_the_tangent_space_residual_of_all_examples_is_that_of_the_best_span_at_least():
    """E‖(I - Π)φ‖² ≥ the sum of all eigenvalues of E φφᵀ but the m largest."""
    net, _ = made(N=30)
    phi, _ = tangents(net, net.x)
    for c in range(2):
        values = np.linalg.eigvalsh(phi[c].T @ phi[c] / 30)[::-1]
        Q = np.linalg.qr(tangents(net, net.x[:4])[0][c].T)[0]
        left = np.sum((phi[c] - phi[c] @ Q @ Q.T) ** 2) / 30
        assert left >= values[4:].sum() * (1 - 1e-12)


def test_ntk_of_the_mean_is_the_mean_of_class_kernels(differentiating):
    net, labels = made(N=6)
    posed = problem(net, labels, differentiating)
    J = posed.linearize(posed.inputs)
    mean = host(class_kernels(J, gradients(J))).mean(axis=0)
    np.testing.assert_allclose(host(ntkest.ntk(J, outputs="trace")), mean, rtol=1e-9)
