"""Choosing examples of each class, and the stages that do no more."""

import warnings

import numpy as np
import pytest

from ntkest.distilled.points.centres import clusters, nearest_members, shares
from ntkest.distilled.points.problem import posed
from ntkest.distilled.points.selection import CHOICES, farthest, left_by, leverage_scores, select
from ntkest.distilled.points.stages import STAGES, Identity, Selection, as_stage
from ntkest.linearization import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from tests.arrays import NAMESPACES, asarray
from tests.networks import functional, network

METHODS = ("uniform", *CHOICES)


def drawn(examples=30, outputs=3, dimensions=8, seed=0):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((examples, outputs, dimensions)), draw.permutation(np.arange(examples) % 3)


def rows(features, members):
    return features[members].reshape(len(members), -1)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_different_examples_of_each_class_are_chosen_and_the_seed_says_which(method):
    features, labels = drawn()
    chosen = select(features, 4, labels, method, seed=1)
    assert np.array_equal(labels[chosen], np.repeat(np.arange(3), 4))
    assert len(set(chosen)) == 12
    assert np.array_equal(chosen, select(features, 4, labels, method, seed=1))
    assert any(not np.array_equal(chosen, select(features, 4, labels, method, seed=s)) for s in (2, 3, 4))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_namespace_chooses_the_same(namespace, method):
    features, labels = drawn()
    found = select(asarray(namespace, features), 3, asarray(namespace, labels), method)
    assert np.array_equal(found, select(features, 3, labels, method))


@pytest.mark.parametrize("method", METHODS)
def test_all_of_a_class_can_be_chosen_even_if_they_are_the_same(method):
    labels = np.array([0, 0, 0, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for features in (np.ones((6, 2, 3)), np.zeros((6, 2, 3)), drawn(6)[0]):
            assert sorted(select(features, 3, labels, method)) == [0, 1, 2, 3, 4, 5]


def test_the_farthest_point_is_the_one_with_the_farthest_nearest_neighbour_chosen_before():
    features, labels = drawn()
    for label in range(3):
        members = np.flatnonzero(labels == label)
        points = rows(features, members)
        chosen = list(farthest(points @ points.T, 5, np.random.default_rng(0)))
        for i in range(1, 5):
            gaps = np.linalg.norm(points[:, None] - points[chosen[:i]][None], axis=2).min(axis=1)
            assert chosen[i] == gaps.argmax()


def test_leverage_scores_are_those_of_a_ridge_at_which_they_sum_to_the_count():
    points = np.random.default_rng(0).standard_normal((12, 6)) * [3, 2, 1, 0.5, 0.1, 0.1]
    K = points @ points.T
    scores = leverage_scores(K, 4)
    assert scores.sum() == pytest.approx(4)
    ridges = np.geomspace(1e-6, 1e3, 20001)
    values = np.linalg.eigvalsh(K)
    ridge = ridges[np.abs((values / (values + ridges[:, None])).sum(axis=1) - 4).argmin()]
    np.testing.assert_allclose(scores, np.diagonal(K @ np.linalg.inv(K + ridge * np.eye(12))), rtol=2e-3)


def test_an_example_that_stands_alone_has_the_leverage_of_one_and_copies_share_theirs():
    points = np.zeros((10, 2))
    points[:9, 0], points[9, 1] = 1, 1
    scores = leverage_scores(points @ points.T, 2)
    np.testing.assert_allclose(scores, [1 / 9] * 9 + [1], rtol=1e-6)


def test_kmeans_chooses_the_member_nearest_to_the_mean_of_each_cluster():
    draw = np.random.default_rng(0)
    owner = draw.permutation(np.arange(24) % 4)
    points = 20 * np.eye(4)[owner] + draw.standard_normal((24, 4))
    chosen = select(points, 4, np.zeros(24), "kmeans")
    means = np.stack([points[owner == j].mean(axis=0) for j in range(4)])
    nearest = np.linalg.norm(points[:, None] - means[None], axis=2).argmin(axis=0)
    assert sorted(chosen) == sorted(nearest)


def test_clusters_are_a_fixed_point_of_lloyds_iteration():
    points = np.random.default_rng(1).standard_normal((40, 3))
    owner = clusters(points @ points.T, 5, np.random.default_rng(0))
    means = shares(owner) @ points
    np.testing.assert_allclose(means, np.stack([points[owner == j].mean(axis=0) for j in range(5)]))
    gaps = np.linalg.norm(points[:, None] - means[None], axis=2)
    assert np.array_equal(gaps.argmin(axis=1), owner)
    found = nearest_members(points @ points.T, owner)
    assert np.array_equal(found, np.where(owner[:, None] == np.arange(5), gaps, np.inf).argmin(axis=0))


def test_pivots_come_from_different_directions_while_there_are_any():
    points = np.repeat(np.eye(4), 6, axis=0)
    chosen = select(points, 4, np.zeros(24), "rpcholesky")
    assert sorted(chosen // 6) == [0, 1, 2, 3]


def test_what_examples_leave_is_what_a_projection_on_their_span_leaves():
    points = np.random.default_rng(0).standard_normal((9, 5))
    basis = np.linalg.qr(points[[1, 4]].T)[0]
    wanted = np.sum((points - points @ basis @ basis.T) ** 2)
    assert left_by(points @ points.T, np.array([1, 4])) == pytest.approx(wanted)
    assert left_by(points @ points.T, np.array([1, 4, 1])) == pytest.approx(wanted)


def test_two_axes_are_features_of_one_output():
    features, labels = drawn(outputs=1)
    assert np.array_equal(select(features[:, 0], 2, labels), select(features, 2, labels))


@pytest.mark.parametrize("method", METHODS)
def test_exact_kernels_choose_as_the_rows_of_the_jacobian_do(framework, method):
    net = network(sizes=(3, 5, 2), N=12)
    labels = np.arange(12) % 2
    f, params, x = functional(net, framework)
    features = net.jacobian().reshape(12, 2, -1)
    problem = posed(f, params, x, labels=labels, count=2)
    points = Selection(method)(problem)
    chosen = select(features, 2, labels, method)
    assert np.array_equal(points.indices, chosen)
    np.testing.assert_allclose(np.asarray(points.inputs), net.x[chosen], rtol=1e-6)
    assert np.array_equal(points.labels, labels[chosen])
    spent = (0, 0) if method == "uniform" else (2 * 12, 3 * 12)
    assert (points.gradients, points.passes) == spent
    given = posed(f, params, x, labels=labels, count=2, features=features)
    again = Selection(method)(given)
    assert np.array_equal(again.indices, chosen)
    assert (again.gradients, again.passes) == (0, 0)


def test_identity_takes_all_class_after_class():
    net = network(N=6)
    problem = posed(len, np.array(net.x), labels=[1, 0, 1, 0, 1, 0], count=1)
    points = Identity()(problem)
    assert points.indices.tolist() == [1, 3, 5, 0, 2, 4]
    assert points.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(points.inputs, net.x[points.indices])


def test_stages_are_known_by_name_and_ones_own_are_taken_as_they_are():
    assert list(STAGES) == [
        "identity", "uniform", "kmeans", "farthest", "leverage", "rpcholesky", "wasserstein", "tangent", "inducing",
    ]  # fmt: skip
    assert as_stage("farthest") == Selection("farthest")
    own = lambda problem: None  # noqa: E731
    assert as_stage(own) is own
    with pytest.raises(InvalidValueError, match="'nearest' is no data stage; there are identity"):
        as_stage("nearest")
    with pytest.raises(InvalidTypeError, match="name of a data stage"):
        as_stage(3)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"labels": np.arange(30) % 3 + (np.arange(30) % 3 > 0)}, InvalidValueError, "no examples of 1"),
        ({"classes": 5}, InvalidValueError, "no examples of 3, 4"),
        ({"classes": 2}, InvalidValueError, "there are 2 classes, but labels run up to 2"),
        ({"count": 11}, InvalidValueError, "11 points a class are wanted, but class 0 has 10"),
        ({"count": 0}, InvalidValueError, "positive"),
        ({"count": 2.0}, InvalidTypeError, "count="),
        ({"method": "nearest"}, InvalidValueError, "'uniform', 'kmeans'"),
        ({"labels": np.arange(29) % 3}, ShapeError, r"\(30,\), not \(29,\)"),
        ({"labels": np.linspace(0, 2, 30)}, InvalidValueError, "integers"),
        ({"labels": np.arange(30) % 3 - 1}, InvalidValueError, "integers from 0"),
        ({"features": [[1.0]]}, InvalidTypeError, "features are an array"),
        ({"features": np.ones(30)}, ShapeError, r"\(m, O, k\)"),
    ],
)
def test_misfits_are_refused(change, error, match):
    features, _ = drawn()
    given = {"features": features, "count": 2, "labels": np.arange(30) % 3, **change}
    with pytest.raises(error, match=match):
        select(**given)


def test_features_that_are_not_finite_are_named():
    features, labels = drawn()
    features[[4, 17], 1, 2] = np.nan, np.inf
    with pytest.raises(NonFiniteError, match="of 2 examples hold NaN or infinity: 4, 17"):
        select(features, 2, labels)


def test_a_problem_needs_inputs_and_features_of_the_same_examples():
    x = np.ones((6, 2))
    with pytest.raises(InvalidTypeError, match="needs inputs"):
        posed(len, labels=[0], count=1)
    with pytest.raises(InvalidTypeError, match="one array"):
        posed(len, [1.0, 2.0], labels=[0, 0], count=1)
    with pytest.raises(ShapeError, match="6 inputs, but features of 5"):
        posed(len, x, labels=[0] * 6, count=1, features=np.ones((5, 1, 2)))
