"""What cannot be distilled, and what cannot be predicted from what was."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ntkest
from ntkest.distilled.compression import chosen
from tests.distilling import NET, NEW, PHI, SAID, N, O, P, explicit


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
