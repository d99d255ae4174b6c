"""Ridge regression by class, against explicit inverses and singular value decompositions."""

import numpy as np
import pytest

import ntkest
from ntkest.distilled import prediction
from ntkest.distilled.prediction import class_ridge, rank_curve
from tests.arrays import NAMESPACES, accuracy, asarray

S, O, K, N = 9, 3, 14, 6  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
FEATURES, TARGETS = DRAW.standard_normal((S, O, K)), DRAW.standard_normal((S, O))
MANY, MANY_TARGETS = DRAW.standard_normal((2 * K, O, K)), DRAW.standard_normal((2 * K, O))
OTHERS = DRAW.standard_normal((N, O, K))


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return request.param


def explicit(features, targets, ridge, rank=None):
    """f_c = k̂_c (K_c + λ d I)⁻¹ y_c of each class, on the first terms of the decomposition of Φ_c."""
    columns = []
    for c in range(features.shape[1]):
        left, sizes, right = np.linalg.svd(features[:, c], full_matrices=False)
        phi = (left * sizes)[:, :rank] @ right[:rank]
        shift = ridge * np.trace(features[:, c] @ features[:, c].T) / len(features)
        inverse = np.linalg.inv(phi @ phi.T + shift * np.eye(len(phi)))
        columns.append(OTHERS[:, c] @ phi.T @ inverse @ targets[:, c])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("form", ["auto", "dual", "primal"])
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_a_fit_is_the_explicit_inverse(namespace, form, ridge):
    for features, targets, chosen in ((FEATURES, TARGETS, "dual"), (MANY, MANY_TARGETS, "primal")):
        wanted = explicit(features, targets, ridge)
        found = class_ridge(asarray(namespace, features), asarray(namespace, targets), ridge, form)
        predicted = found.predict(asarray(namespace, OTHERS))
        np.testing.assert_allclose(np.asarray(predicted), wanted, atol=accuracy(predicted) * np.abs(wanted).max())
        assert found.form == (chosen if form == "auto" else form)
        assert type(predicted) is type(asarray(namespace, OTHERS))


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_the_predictor_of_a_rank_has_the_first_components_only(namespace, form):
    features, targets, others = (asarray(namespace, a) for a in (FEATURES, TARGETS, OTHERS))
    curve = rank_curve(features, targets, [1, 4, S], 1e-2, form)
    for rank, fit in zip([1, 4, S], curve, strict=True):
        predicted = fit.predict(others)
        np.testing.assert_allclose(
            np.asarray(predicted), explicit(FEATURES, TARGETS, 1e-2, rank), atol=10 * accuracy(predicted)
        )
        assert fit.rank == rank
    alone = class_ridge(features, targets, 1e-2, form, rank=4).predict(others)
    np.testing.assert_allclose(np.asarray(alone), np.asarray(curve[1].predict(others)), atol=accuracy(alone))


def test_few_classes_at_a_time_are_all_of_them(monkeypatch):
    whole = class_ridge(FEATURES, TARGETS).weights
    ranked = rank_curve(FEATURES, TARGETS, [3])[0].weights
    monkeypatch.setattr(prediction, "TOGETHER", 2 * S * K)  # two classes, then one
    np.testing.assert_allclose(class_ridge(FEATURES, TARGETS).weights, whole, atol=1e-12)
    np.testing.assert_allclose(rank_curve(FEATURES, TARGETS, [3])[0].weights, ranked, atol=1e-12)


def test_large_systems_are_solved_in_halves():
    """More gradients than are solved at once."""
    features, targets = DRAW.standard_normal((300, 2, 310)), DRAW.standard_normal((300, 2))
    found = class_ridge(features, targets, 1e-2).weights
    for c in range(2):
        gram = features[:, c] @ features[:, c].T
        shifted = gram + 1e-2 * np.trace(gram) / 300 * np.eye(300)
        np.testing.assert_allclose(found[c], features[:, c].T @ np.linalg.solve(shifted, targets[:, c]), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-18, 1e-10, 1e10, 1e18])
def test_the_scale_of_float32_features_does_not_matter(namespace, scale):
    small, others = FEATURES.astype("float32"), OTHERS.astype("float32")
    fits = []
    for s in (1, scale):
        fit = class_ridge(asarray(namespace, small * np.float32(s)), asarray(namespace, TARGETS.astype("float32")))
        fits.append(np.asarray(fit.predict(asarray(namespace, others * np.float32(s)))))
    np.testing.assert_allclose(fits[1], fits[0], atol=2e-3)


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("rank", [None, 3])
def test_a_class_without_gradients_gets_zero_and_the_others_what_they_get_alone(namespace, form, rank):
    features = FEATURES.copy()
    features[:, 1] = 0
    fit = class_ridge(asarray(namespace, features), asarray(namespace, TARGETS), 1e-2, form, rank)
    found = np.asarray(fit.predict(asarray(namespace, OTHERS)))
    wanted = explicit(FEATURES, TARGETS, 1e-2, rank)
    np.testing.assert_array_equal(found[:, 1], 0)
    np.testing.assert_allclose(found[:, ::2], wanted[:, ::2], atol=10 * accuracy(fit.weights))


def test_dependent_gradients_without_a_ridge_need_a_rank():
    twice, targets = np.concatenate([FEATURES, FEATURES]), np.concatenate([TARGETS, TARGETS])
    with pytest.raises(ntkest.NTKError, match="singular to rounding"):
        class_ridge(twice, targets, 0.0, "dual")
    found = class_ridge(twice, targets, 0.0, rank=K)
    for c in range(O):
        np.testing.assert_allclose(found.weights[c], np.linalg.pinv(twice[:, c]) @ targets[:, c], atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_ridge(FEATURES, TARGETS.T), "go with targets"),
        (lambda: class_ridge(FEATURES, TARGETS * np.nan), "targets hold NaN"),
        (lambda: class_ridge(FEATURES, TARGETS.astype(int)), "real numbers"),
        (lambda: class_ridge(FEATURES, TARGETS.tolist()), "targets must be an array"),
        (lambda: class_ridge(FEATURES, TARGETS, -1.0), "not negative"),
        (lambda: class_ridge(FEATURES, TARGETS, form="both"), "one of auto"),
        (lambda: class_ridge(FEATURES, TARGETS, rank=S + 1), "ranks from 1 to 9"),
        (lambda: class_ridge(FEATURES, TARGETS, rank=2.0), "a rank is an integer"),
        (lambda: class_ridge(FEATURES, TARGETS).predict(OTHERS[:, :2]), "those that were fitted"),
        (lambda: class_ridge(FEATURES, TARGETS).predict(asarray("array_api_strict", OTHERS)), "convert one of them"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()
