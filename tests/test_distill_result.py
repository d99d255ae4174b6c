"""What distilled kernels cost, how good they are, and what is written and read."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ntkest
from ntkest.distilled.points import Points
from ntkest.linearization import host
from tests.distilling import NET, NEW, NEW_SAID, OTHERS, PHI, SAID, N, O, P, close, dual, sampled
from tests.networks import functional

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
