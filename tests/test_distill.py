"""The whole pipeline: what is predicted, what it costs, what is written and read, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import array_api_compat
import numpy as np
import pytest

import ntkest
from ntkest.distilled.compression import chosen
from ntkest.distilled.problem import Points
from ntkest.linearization import beside, host
from tests.arrays import NAMESPACES, accuracy, asarray
from tests.networks import available, functional, network

SIZES, N, O = (4, 16, 3), 24, 3  # noqa: E741
P = 4 * 16 + 16 + 16 * 3 + 3
NET = network(SIZES, seed=10, N=N)
OTHERS = np.random.default_rng(5).standard_normal((7, 4))
CLASSES = NET.outputs().argmax(1)
DRAW = np.random.default_rng(0)
PHI, SAID = DRAW.standard_normal((20, 3, 50)), DRAW.standard_normal((20, 3))
NEW, NEW_SAID = DRAW.standard_normal((6, 3, 50)), DRAW.standard_normal((6, 3))


def explicit(A):
    """A linearization with the Jacobian A and the network's outputs."""
    J = ntkest.from_jacobian(A, (N, O))
    J.outputs = NET.outputs()
    return J


def posed(framework):
    """``(f, params, inputs)`` and other inputs beside them."""
    f, params, x = functional(NET, framework)
    return (f, params, x), beside(array_api_compat.array_namespace(x), OTHERS, x)


@pytest.fixture
def model(framework):
    """The network in each framework."""
    return posed(framework)


ONE = next((name for name in ("numpy", "torch", "jax") if name in available()), None)
"""The framework that is quickest with small networks: for what is the same in all."""


@pytest.fixture
def one():
    """The network in one framework."""
    if ONE is None:
        pytest.skip("no framework is installed")
    return posed(ONE)


def dual(features, targets, new, ridge=1e-4):
    """Class ridge regression by explicit inverses: of (s, O, k), (s, O) for (n, O, k)."""
    features, targets, new = (np.asarray(host(a), dtype=np.float64) for a in (features, targets, new))
    found = np.empty(new.shape[:2])
    for c in range(features.shape[1]):
        K = features[:, c] @ features[:, c].T
        shifted = K + ridge * np.trace(K) / len(K) * np.eye(len(K))
        found[:, c] = new[:, c] @ features[:, c].T @ np.linalg.inv(shifted) @ targets[:, c]
    return found


def sampled(framework):
    """Gradients of the first example, by whose shapes work is planned where layers give factors."""
    return 0 if framework == "numpy" else O


def close(found, wanted, scale=1.0):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(host(found), wanted, rtol=0, atol=scale * accuracy(found) * np.abs(wanted).max())


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


# What it costs, and how good it is ------------------------------------------------------------------------------------


def test_the_ledger_counts_gradients_and_has_the_formulas(framework):
    found = ntkest.distill(*functional(NET, framework), dim=30, size=5, clusters=2)
    ledger = found.ledger
    assert ledger.counts == {"N": N, "O": O, "P": P, "m": N, "s": 5, "k": 30}
    taken = N * O + sampled(framework)
    assert (ledger["distilled"].gradients, ledger["distilled"].passes) == (taken, taken + N)
    assert (ledger["pntk"].gradients, ledger["pntk"].passes) == (N, 2 * N)
    assert (ledger["full"].gradients, ledger["full"].passes) == (N * O, N * (O + 1))
    forward, reverse = 2 * P, 4 * P  # a multiplication and an addition a weight, and twice that
    assert ledger["full"].flops == N * (forward + O * reverse) + P * (N * O) ** 2 + (N * O) ** 3 / 3
    linear = O * N**2 * 30 + 9 * N**3 + 2 * N * 5 * O * 30 + O * (5**2 * 30 + 5**3 / 3)
    if framework == "numpy":  # whose gradients are multiplied out, and projected so
        assert ledger["distilled"].flops == N * (forward + O * reverse) + 2 * P * 30 * N * O + linear
    item = 4 if framework == "jax" else 8
    assert ledger["full"].bytes == item * (N * O) ** 2
    assert ledger["distilled"].bytes == item * N * O * 30
    assert ledger["distilled"].stored == item * 5 * O * 31
    saved = ledger.saved("full")
    assert saved["gradients"] == N * O / taken
    assert saved["bytes"] == (N * O) / 30
    lines = str(ledger).splitlines()
    assert lines[0].split() == ["gradients", "passes", "FLOPs", "bytes", "stored"]
    assert len(lines) == 5


def test_pntk_costs_what_dense_layers_cost_in_factors(framework):
    if framework == "numpy":
        pytest.skip("autograd gives gradients multiplied out")
    ledger = ntkest.distill(*functional(NET, framework), dim=30, size=5, clusters=2).ledger
    pair = sum(min(2 * (p + q + 1), 2 * p * q) for p, q in ((4, 16), (16, 3))) + 2 * (16 + 3)
    assert ledger["pntk"].flops == pytest.approx(N * 6 * P + pair * N**2 / 2 + N**3 / 3)


def test_metrics_are_those_of_loops(one):
    (f, params, x), others = one
    found = ntkest.distill(f, params, x, dim=40, size=6, clusters=2)
    truth = replace(NET, x=OTHERS).outputs()
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    scores = found.metrics(others, labels)
    predicted = np.asarray(host(found.predict(others)))
    assert scores.examples == 7
    assert scores.fidelity == pytest.approx(np.mean(predicted.argmax(1) == truth.argmax(1)))
    assert scores.accuracy == pytest.approx(np.mean(predicted.argmax(1) == labels))
    assert scores.network_accuracy == pytest.approx(np.mean(truth.argmax(1) == labels))
    assert scores.logit_mse == pytest.approx(np.mean((predicted - truth) ** 2), rel=1e-3)
    assert scores.logit_error == pytest.approx(np.linalg.norm(predicted - truth) / np.linalg.norm(truth), rel=1e-3)
    whole = dual(found.project(x), NET.outputs(), found.project(others))
    assert scores.uncompressed_fidelity == pytest.approx(np.mean(whole.argmax(1) == truth.argmax(1)))
    assert scores.agreement == pytest.approx(np.mean(whole.argmax(1) == predicted.argmax(1)))
    assert scores.compression == N / 6
    for c in range(O):
        phi = np.asarray(host(found.features), dtype=np.float64)[:, c]
        values = np.linalg.eigvalsh(phi @ phi.T)
        assert scores.condition_numbers[c] == pytest.approx(values[-1] / values[0], rel=0.05)
        assert scores.smallest_eigenvalues[c] == pytest.approx(values[0] / values.mean(), rel=0.05)
    assert "fidelity to the network" in str(scores)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_metrics_of_features_take_the_outputs():
    found = ntkest.distill_features(PHI, SAID, size=8, clusters=3)
    scores = found.metrics(NEW, outputs=NEW_SAID)
    assert scores.logit_mse == pytest.approx(np.mean((found.predict(NEW) - NEW_SAID) ** 2))
    assert scores.accuracy is None
    with pytest.raises(ntkest.NTKError, match="outputs="):
        found.metrics(NEW)
    with pytest.raises(ntkest.NTKError, match="shape"):
        found.metrics(NEW, outputs=NEW_SAID[:, :2])


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_predicts_as_what_was_saved(model, tmp_path):
    (f, params, x), others = model
    found = ntkest.distill(f, params, x, dim=40, size=6, clusters=2)
    found.save(tmp_path / "d.npz")
    again = ntkest.DistilledNTK.load(tmp_path / "d.npz", f, params, batch=3)
    close(again.predict(others), host(found.predict(others)))
    assert type(again.predict(others)) is type(x)
    assert again.to_dict() == json.loads(json.dumps(found.to_dict()))
    assert again.compression.kinds == found.compression.kinds
    np.testing.assert_array_equal(again.compression.clusters, found.compression.clusters)
    np.testing.assert_array_equal(again.points.indices, found.points.indices)
    assert repr(again) == repr(found)
    alone = ntkest.DistilledNTK.load(tmp_path / "d.npz")
    close(alone.predict(ntkest.linearize(f, params, others)), host(found.predict(others)))
    close(alone.predict(np.asarray(host(found.project(others)))), host(found.predict(others)))
    scores = again.metrics(others)
    assert scores.agreement is None
    assert scores.fidelity == found.metrics(others).fidelity


def test_new_points_are_saved_with_their_inputs(one, tmp_path):
    (f, params, x), others = one
    labels = np.arange(7) % 3
    found = ntkest.distill(
        f, params, x, data=lambda problem: Points(others, labels), points=2, dim=30, compression="none"
    )
    found.save(tmp_path / "d.npz")
    again = ntkest.DistilledNTK.load(tmp_path / "d.npz")
    np.testing.assert_array_equal(again.points.inputs, host(others))
    np.testing.assert_array_equal(again.points.labels, labels)


def test_nothing_is_overwritten_unless_forced(tmp_path):
    found = ntkest.distill_features(PHI, SAID, size=8, clusters=3)
    path = tmp_path / "d.npz"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ntkest.NTKError, match="force=True"):
        found.save(path)
    assert path.read_text(encoding="utf-8") == "mine"
    found.save(path, force=True)
    np.testing.assert_array_equal(ntkest.DistilledNTK.load(path).features, found.features)
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]
    with pytest.raises(ntkest.NTKError, match="cannot write"):
        found.save(tmp_path / "no" / "folder.npz")
    with pytest.raises(ntkest.NTKError, match="regular file"):
        found.save(tmp_path, force=True)


def test_files_of_other_versions_and_other_kinds_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    ntkest.distill_features(PHI, SAID, size=8, clusters=3).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    other = json.dumps({**header, "format": "ntkest-distilled/0"})
    np.savez(path, header=np.array(other), **arrays)
    with pytest.raises(ntkest.NTKError, match=r"'ntkest-distilled/0'.*distill anew"):
        ntkest.DistilledNTK.load(path)
    np.savez(path, **arrays)
    with pytest.raises(ntkest.NTKError, match="no header"):
        ntkest.DistilledNTK.load(path)
    np.savez(path, header=np.array(json.dumps(header)), features=arrays["features"])
    with pytest.raises(ntkest.NTKError, match="lacks labels, targets, vectors"):
        ntkest.DistilledNTK.load(path)
    np.savez(path, header=np.array({}, dtype=object))
    with pytest.raises(ntkest.NTKError, match="no distilled kernel, or damaged"):
        ntkest.DistilledNTK.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for content in (b"", b"PK\x03\x04 and so on", b"text"):
        path.write_bytes(content)
        with pytest.raises(ntkest.NTKError, match="no distilled kernel, or damaged"):
            ntkest.DistilledNTK.load(path)
    for place in (tmp_path / "array.npy",):
        with pytest.raises(ntkest.NTKError, match="no distilled kernel"):
            ntkest.DistilledNTK.load(place)
    with pytest.raises(ntkest.NTKError, match="cannot read"):
        ntkest.DistilledNTK.load(tmp_path / "none.npz")


# What is refused ------------------------------------------------------------------------------------------------------


def test_another_model_is_no_longer_the_one_that_was_distilled(one, tmp_path):
    (f, params, x), others = one
    found = ntkest.distill(f, params, x, dim=20, size=4, clusters=2)
    found.save(tmp_path / "d.npz")
    moved = [(weight * 2, bias) for weight, bias in params]
    again = ntkest.DistilledNTK.load(tmp_path / "d.npz", f, moved)
    with pytest.raises(ntkest.StaleLinearizationError, match="not those that were distilled"):
        again.predict(others)


BAD = [
    ({"labels": [0, 1] * 12}, "no example of class 2 out of 3"),
    ({"labels": [0, 1, 3] * 8}, "labels run up to 3"),
    ({"labels": [0, 1, 2]}, r"shape \(24,\)"),
    ({"labels": [0.5] * 24}, "integers from 0"),
    ({"data": "kmeans"}, "points= is needed"),
    ({"data": "kmeans", "points": 20}, "20 points a class are wanted"),
    ({"data": "kmeans", "points": 0}, "positive number of points"),
    ({"points": 3}, "data='identity' takes all"),
    ({"data": "magic", "points": 3}, "magic"),
    ({"data": 3}, "data="),
    ({"dim": P + 1}, f"dim={P + 1}: the gradients of {P} parameters"),
    ({"dim": 0}, "dim=0"),
    ({"dim": "many"}, "number of dimensions"),
    ({"kind": "magic"}, "magic"),
    ({"compression": "magic"}, "compression= takes one of local-global"),
    ({"compression": 3}, "compression= takes a name"),
    ({"compression": "global"}, "needs size="),
    ({"compression": "none", "size": 3}, "has its own"),
    ({"compression": lambda features: features}, "is to return a Compression"),
    ({"compression": chosen(5, [0])}, "of 5 points, and there are 24"),
    ({"size": 25}, "size=25"),
    ({"clusters": 25}, "clusters=25: 24 examples"),
    ({"data": "uniform", "points": 2, "clusters": 10}, "clusters=10: 6 examples"),
    ({"ridge": -1}, "ridge="),
    ({"memory": "much"}, "memory="),
    ({"batch": 0}, "batch="),
    ({"batch": "all"}, "batch="),
    ({"seed": -1}, "seed"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_input_is_named(options, said):
    J = explicit(NET.jacobian())
    with pytest.raises(ntkest.NTKError, match=said):
        ntkest.distill(J, **{"dim": 20, "clusters": 2, **options})


def test_what_is_no_model_or_no_inputs_is_named(one):
    (f, params, x), _ = one
    for arguments, said in [
        ((3,), "takes a module, a function or a linearization"),
        ((f,), "got 0 arguments after the model"),
        ((f, params, x, x), "got 3 arguments after the model"),
        ((f, params, [1.0]), "inputs are an array"),
        ((f, params, x[:0, ...]), "inputs have one entry an example"),
        ((ntkest.linearize(f, params, x), x), "has its inputs already"),
    ]:
        with pytest.raises(ntkest.NTKError, match=said):
            ntkest.distill(*arguments)
    with pytest.raises(ntkest.NTKError, match="out= and client="):
        ntkest.distill(f, params, x, data="uniform", points=2, out="features.zarr")
    with pytest.raises(ntkest.NTKError, match="first axis of the outputs"):
        ntkest.distill(ntkest.linearize(f, params, x, batch_axis=None))
    with pytest.raises(ntkest.NTKError, match="give a factory alone"):
        ntkest.distill(f, params, x, client=ThreadPoolExecutor(1))


def test_features_that_cannot_be_distilled_are_named():
    broken = PHI.copy()
    broken[3, 1, 4] = np.nan
    for features, said, message in [
        (broken, SAID, "NaN or infinity"),
        (PHI, SAID[:, :2], "go with outputs"),
        (PHI[:, 0], SAID, "shape"),
        (0 * PHI, SAID, "zero"),
        (PHI.astype(int), SAID, "real floating"),
        (PHI.tolist(), SAID, "are an array"),
        (PHI, SAID.tolist(), "outputs must be an array"),
    ]:
        with pytest.raises(ntkest.NTKError, match=message):
            ntkest.distill_features(features, said, size=4, clusters=2)


def test_gradients_that_are_not_finite_are_refused(one):
    """Those of √s at s = 0 are infinite."""
    (_, params, x), _ = one
    roots = params[0][1][:1] * 0
    with np.errstate(all="ignore"), pytest.raises(ntkest.linearization.NonFiniteError):
        ntkest.distill(
            lambda p, a: a @ p[0] + p[1] ** 0.5, [params[0][0], roots], x, dim=20, size=4, clusters=2, check=False
        )


def test_predicting_from_nothing_says_what_is_wanted():
    found = ntkest.distill_features(PHI, SAID, size=8, clusters=3)
    with pytest.raises(ntkest.NTKError, match=r"features \(n, 3, 50\), not shape"):
        found.predict(NEW[:, :, :20])
    with pytest.raises(ntkest.NTKError, match="not list"):
        found.predict([1, 2])
    with pytest.raises(ntkest.NTKError, match="nothing says how they were projected"):
        found.predict(explicit(NET.jacobian()))


def test_an_explicit_jacobian_has_nothing_to_imitate():
    with pytest.raises(ntkest.NTKError, match="distill_features"):
        ntkest.distill(ntkest.from_jacobian(NET.jacobian(), (N, O)))


# The analysis ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analysed():
    return ntkest.distill_features(PHI, SAID, size=8, clusters=3)


def test_the_analysis_has_ranks_by_class_and_pooled(analysed):
    found = analysed.analysis
    assert found is analysed.analysis
    for c, rank in enumerate(found.redundancy.ranks):
        values = np.linalg.eigvalsh(PHI[:, c] @ PHI[:, c].T)[::-1]
        assert rank == np.argmax(np.cumsum(values) >= 0.95 * values.sum()) + 1
    values = np.linalg.svd(PHI.reshape(60, 50), compute_uv=False) ** 2
    assert found.redundancy.pooled_rank == np.argmax(np.cumsum(values) >= 0.95 * values.sum()) + 1
    K = np.einsum("mok,nok->mn", PHI, PHI)
    u = np.asarray(analysed.compression.vectors)
    assert found.kept_variance == pytest.approx(np.trace(u.T @ K @ u) / np.trace(K))


def test_gaps_are_shares_of_variance(analysed):
    found = analysed.analysis
    values = np.linalg.eigvalsh(np.einsum("mok,nok->mn", PHI, PHI))[::-1]
    covered = analysed.compression.coverage
    weights = values[: len(covered)]
    assert found.coverage_gap == pytest.approx(weights @ (1 - covered) / weights.sum())
    assert 0 <= found.containment_gap <= 1
    assert ntkest.distill_features(PHI, SAID, compression="none").analysis.coverage_gap is None
    assert ntkest.distill_features(PHI, SAID, compression="none").analysis.containment.heat.shape[0] == 3


def test_the_analysis_is_written_if_there_was_one(analysed, tmp_path):
    json.dumps(analysed.analysis.to_dict(), allow_nan=False)
    analysed.save(tmp_path / "with.npz")
    again = ntkest.DistilledNTK.load(tmp_path / "with.npz")
    assert again.analysis.to_dict() == analysed.analysis.to_dict()
    assert str(again.analysis) == str(analysed.analysis)
    ntkest.distill_features(PHI, SAID, size=8, clusters=3).save(tmp_path / "without.npz")
    with pytest.raises(ntkest.NTKError, match="before save"):
        ntkest.DistilledNTK.load(tmp_path / "without.npz").analysis  # noqa: B018


def test_dimensions_are_analysed_where_columns_are_independent(one):
    (f, params, x), _ = one
    kinds = {"rademacher": True, "gaussian": True, "sjlt": False}
    for kind, nested in kinds.items():
        found = ntkest.distill(f, params, x, dim=32, kind=kind, size=5, clusters=2)
        assert (found.analysis.dimensions is not None) == nested
        assert found.about["kind"] == kind
    dims = ntkest.distill(f, params, x, dim=32, size=5, clusters=2).analysis.dimensions
    assert dims.dims == (2, 4, 8, 16, 32)


def test_the_analysis_is_drawn(analysed):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = analysed.analysis.plot()
    assert axes.shape == (2, 2)
    assert not axes[1, 1].get_visible()
    matplotlib.pyplot.close(axes[0, 0].figure)


def test_what_is_printed(analysed, one):
    assert repr(analysed) == "<DistilledNTK of 3 classes: 20 points, 8 gradients in 50 dimensions>"
    assert "20 by given" in str(analysed)
    assert "redundancy" in str(analysed.analysis)
    found = ntkest.distill(*one[0], dim=20, size=4, clusters=2)
    assert "pNTK, in factors" in str(found)
    assert "24 by identity" in str(found)


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
