"""The whole pipeline: what is predicted, and from which points."""

from concurrent.futures import ThreadPoolExecutor

import array_api_compat
import numpy as np
import pytest

import ntkest
from ntkest.distilled.compression import chosen
from ntkest.distilled.points import Points
from ntkest.linearization import beside, host
from tests.arrays import NAMESPACES, asarray
from tests.distilling import CLASSES, NET, NEW, ONE, PHI, SAID, N, O, P, close, dual, sampled

# What is predicted ----------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_explicit_class_kernels(model):
    (f, params, x), others = model
    found = ntkest.distill(f, params, x, dim=40, size=6, clusters=2, ridge=1e-2)
    assert tuple(found.features.shape) == (6, 3, 40)
    assert type(found.predict(others)) is type(x)
    close(found.predict(others), dual(found.features, found.targets, found.project(others), 1e-2), 10)
    u = np.asarray(host(found.compression.vectors))
    close(found.features, np.einsum("mok,ms->sok", host(found.project(x)), u), 10)
    close(found.targets, u.T @ NET.outputs(), 10)


def test_without_compression_it_is_the_regression_on_the_points(model):
    (f, params, x), others = model
    found = ntkest.distill(f, params, x, dim=40, compression="none")
    close(found.features, host(found.project(x)))
    close(found.predict(others), dual(found.project(x), NET.outputs(), found.project(others)), 100)


def test_features_have_the_products_of_gradients(one):
    (f, params, x), _ = one
    wanted = np.einsum("nop,mop->onm", *(NET.jacobian().reshape(N, O, P) for _ in range(2)))
    found = ntkest.distill(f, params, x, compression="none").kernel(x)
    assert found.shape == (O, N, N)
    assert np.linalg.norm(host(found) - wanted) < 0.35 * np.linalg.norm(wanted)


def test_batches_and_memory_change_nothing(one):
    (f, params, x), others = one
    whole = ntkest.distill(f, params, x, dim=20, size=5, compression="global")
    parts = ntkest.distill(f, params, x, dim=20, size=5, compression="global", batch=5, memory="60kB")
    close(parts.predict(others), host(whole.predict(others)), 100)
    close(parts.kernel(x, others), host(whole.kernel(x, others)), 10)
    assert whole.kernel(x, others).shape == (O, N, 7)


def test_a_lower_rank_leaves_small_directions_out():
    found = ntkest.distill_features(PHI, SAID, compression="none", ridge=0.1)
    wanted = np.empty((6, 3))
    for c in range(3):
        U, S, V = np.linalg.svd(PHI[:, c], full_matrices=False)
        S, size = S[:4], np.sum(PHI[:, c] ** 2) / 20
        wanted[:, c] = NEW[:, c] @ V[:4].T @ (S / (S**2 + 0.1 * size) * (U[:, :4].T @ SAID[:, c]))
    np.testing.assert_allclose(found.predict(NEW, rank=4), wanted, atol=1e-10)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_given_features_in_every_namespace(namespace):
    features, said, new = (asarray(namespace, a) for a in (PHI, SAID, NEW))
    found = ntkest.distill_features(features, said, size=8, clusters=3)
    assert found.ledger is None
    assert type(found.predict(new)) is type(features)
    close(found.predict(new), dual(found.features, found.targets, new), 1e3)
    close(found.kernel(new), np.einsum("nok,mok->onm", NEW, NEW), 10)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("global", {"size": 5}),
        ("uniform", {"size": 5}),
        ("kmeans", {"size": 5}),
        ("farthest", {"size": 5}),
        ("leverage", {"size": 5}),
        ("rpcholesky", {"size": 5}),
        ("none", {}),
        ("local-global", {"variance": 0.8, "coverage_threshold": 0.3, "clusters": 2}),
    ],
)
def test_every_compression_has_its_name(name, options):
    found = ntkest.distill_features(PHI, SAID, compression=name, seed=3, **options)
    assert found.about["compression"] == name
    assert found.size == {"none": 20, "local-global": found.size}.get(name, 5)
    kinds = {"global": {"global"}, "local-global": {"local", "gap"}}.get(name, {"chosen"})
    assert set(found.compression.kinds) <= kinds


def test_a_compression_can_be_handed_in():
    own = chosen(20, [4, 7])
    for given in (own, lambda features: own):
        found = ntkest.distill_features(PHI, SAID, compression=given)
        np.testing.assert_allclose(found.features, PHI[[4, 7]])
        np.testing.assert_allclose(found.targets, SAID[[4, 7]])


def test_the_same_seed_gives_the_same_and_another_another():
    first, again, other = (
        ntkest.distill_features(PHI, SAID, compression="uniform", size=5, seed=s).features for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# Points ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["uniform", "kmeans"])
def test_selected_points_are_of_each_class(one, method):
    (f, params, x), _ = one
    labels = np.arange(N) % O
    found = ntkest.distill(f, params, x, labels=labels, data=method, points=3, dim=30, compression="none", seed=4)
    indices = found.points.indices
    np.testing.assert_array_equal(np.bincount(labels[indices]), [3, 3, 3])
    np.testing.assert_array_equal(found.points.labels, labels[indices])
    close(found.targets, NET.outputs()[indices])
    close(found.features, host(found.project(x))[indices], 10)
    assert found.ledger["distilled"].gradients == (9 if method == "uniform" else N) * O + sampled(ONE)


def test_the_networks_own_classes_stand_for_labels(one):
    (f, params, x), _ = one
    found = ntkest.distill(f, params, x, data="uniform", points=2, dim=30, compression="none")
    np.testing.assert_array_equal(found.points.labels, CLASSES[found.points.indices])


def test_a_stage_may_make_points_and_say_what_the_model_is_to_say(one):
    (f, params, x), others = one
    said = beside(array_api_compat.array_namespace(x), np.eye(3)[[0, 1, 2, 0, 1, 2, 0]], x)

    def stage(problem):
        assert problem.count == 2
        return Points(others, np.arange(7) % 3, targets=said, gradients=5, passes=9)

    found = ntkest.distill(f, params, x, labels=np.arange(N) % O, data=stage, points=2, dim=30, compression="none")
    close(found.features, host(found.project(others)), 10)
    np.testing.assert_array_equal(host(found.targets), host(said))
    assert found.points.indices is None
    assert found.ledger["distilled"].gradients == 7 * O + sampled(ONE) + 5
    assert found.ledger["distilled"].passes == 7 * (O + 1) + sampled(ONE) + 9


def test_a_linearization_is_distilled_and_predicts_for_others(one):
    (f, params, x), others = one
    J, there = (ntkest.linearize(f, params, a, batch_axis=0) for a in (x, others))
    found = ntkest.distill(J, dim=30, data="kmeans", points=1, compression="none")
    whole = ntkest.distill(f, params, x, dim=30, data="kmeans", points=1, compression="none")
    close(found.predict(there), host(whole.predict(others)))
    assert found.points.inputs is None


FACTORY = """
import numpy as np
import ntkest

def make():
    A = np.random.default_rng(0).standard_normal((12, 60))
    J = ntkest.from_jacobian(A, (6, 2))
    J.outputs = A[:, :1].reshape(6, 2)
    return J
"""


def test_workers_and_a_store_change_nothing(tmp_path):
    pytest.importorskip("zarr")
    (tmp_path / "factory.py").write_text(FACTORY, encoding="utf-8")
    names = {}
    exec(FACTORY, names)
    wanted = ntkest.distill(names["make"](), dim=20, size=3, clusters=1)
    with ThreadPoolExecutor(1) as client:
        found = ntkest.distill(f"{tmp_path}/factory.py:make", dim=20, size=3, clusters=1, client=client)
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-6)
    assert found.ledger["distilled"].gradients == 12
    stored = ntkest.distill(names["make"](), dim=20, size=3, clusters=1, out=tmp_path / "features.zarr")
    np.testing.assert_allclose(stored.features, wanted.features, rtol=1e-6)
    again = ntkest.distill(names["make"](), dim=20, size=3, clusters=1, out=tmp_path / "features.zarr")
    assert again.ledger["distilled"].gradients < 12


def test_progress_is_reported(one):
    seen = []
    ntkest.distill(*one[0], dim=20, size=3, progress=lambda done, expected: seen.append(done))
    assert seen


def test_digits_are_read_as_the_network_reads_them():
    pytest.importorskip("sklearn")
    pytest.importorskip("autograd")
    from ntkest.report import digits

    data, params = digits.load_digits(0), digits.initial(0)
    *_, params = digits.train(digits.linearized(params, data.train_images), data.train_labels, params, 30)
    images, labels = data.train_images[:200], data.train_labels[:200]
    found = ntkest.distill(digits.network, params, images, labels=labels, dim=512, size=40)
    scores = found.metrics(data.images[:150], data.labels[:150])
    assert scores.fidelity > 0.9
    assert scores.accuracy > 0.88
    assert scores.network_accuracy > 0.9
    assert max(found.analysis.redundancy.ranks) < 100
