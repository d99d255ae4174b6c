"""Redundancy, containment and metrics of tangent features, against their definitions in NumPy."""

import json
import math

import numpy as np
import pytest

import ntkest
from ntkest.distilled import plots
from ntkest.distilled.analysis import containment, kept_variance
from ntkest.distilled.compression import chosen
from ntkest.distilled.decomposition import decompose
from ntkest.distilled.dimensions import parameter_redundancy
from ntkest.distilled.local_global import global_eigenvectors
from ntkest.distilled.metrics import accuracy as rate
from ntkest.distilled.metrics import conditioning, evaluate, fidelity, logit_mse
from ntkest.distilled.truncation import data_redundancy, truncation_rank
from tests.arrays import NAMESPACES, accuracy, asarray

M, O, K = 15, 3, 30  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
FEATURES = DRAW.standard_normal((M, O, K)) * np.arange(1, K + 1) ** -0.8
KERNELS = np.stack([FEATURES[:, c] @ FEATURES[:, c].T for c in range(O)])
MEAN = KERNELS.mean(axis=0)
PREDICTED, TEACHER = DRAW.standard_normal((20, 4)), DRAW.standard_normal((20, 4))


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return request.param


def spectrum(kernel):
    return np.linalg.eigvalsh(kernel)[::-1]


@pytest.mark.parametrize(
    ("values", "share", "rank"),
    [
        ([5, 3, 1, 1], 0.2, 2),
        ([5, 3, 1, 1], 0.05, 4),
        ([5, 3, 1, 1], 0.5, 1),
        ([1, 1, 1, 1], 0.25, 3),
        ([2, 0, 0], 0.0, 1),
        ([0, 0], 0.1, 0),
        ([1, 1], 1.0, 0),
    ],
)
def test_the_truncation_rank_is_the_least_that_carries_the_rest(values, share, rank):
    assert truncation_rank(np.array(values, dtype=float), share) == rank


@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_redundancy_counts_directions_of_classes_their_mean_and_all_together(namespace, scale):
    found = data_redundancy(asarray(namespace, FEATURES * scale), 0.1)
    rows = FEATURES.reshape(-1, K)
    wanted = [*KERNELS, MEAN, rows @ rows.T]
    mine = [*found.class_spectra, found.mean_spectrum, found.pooled_spectrum]
    rtol = accuracy(asarray(namespace, FEATURES))
    for values, kernel in zip(mine, wanted, strict=True):
        exact = scale**2 * spectrum(kernel)[: len(values)]
        np.testing.assert_allclose(values, exact, atol=rtol * exact[0])
    assert len(found.pooled_spectrum) == K < M * O
    ranks = [truncation_rank(spectrum(kernel), 0.1) for kernel in wanted]
    assert [*found.ranks, found.mean_rank, found.pooled_rank] == ranks
    np.testing.assert_allclose(found.ratios, M / np.array(ranks[:O]))
    assert found.pooled_ratio == M * O / ranks[-1]


def test_redundancy_of_fewer_gradients_than_dimensions_is_the_same():
    found = data_redundancy(FEATURES[:5])
    rows = FEATURES[:5].reshape(-1, K)
    np.testing.assert_allclose(found.pooled_spectrum, spectrum(rows @ rows.T), atol=1e-12)
    assert str(found).splitlines()[-1].split()[:3] == ["all", "pooled", "15"]


def test_a_class_without_gradients_has_rank_zero_and_says_so():
    features = FEATURES.copy()
    features[:, 1] = 0
    found = data_redundancy(features)
    assert found.ranks[1] == 0
    assert math.isinf(found.ratios[1])
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["ratios"][1] is None
    assert "inf" in str(found)


def test_fewer_dimensions_are_the_first_columns_rescaled(namespace):
    found = parameter_redundancy(asarray(namespace, FEATURES), [5, 20, K], share=0.1)
    rtol = accuracy(asarray(namespace, FEATURES))
    for row, dim in enumerate(found.dims):
        for c in range(O):
            fewer = FEATURES[:, c, :dim] @ FEATURES[:, c, :dim].T * K / dim
            error = np.linalg.norm(fewer - KERNELS[c]) / np.linalg.norm(KERNELS[c])
            assert found.kernel_errors[row, c] == pytest.approx(error, abs=rtol)
            change = np.linalg.norm(spectrum(fewer) - spectrum(KERNELS[c])) / np.linalg.norm(KERNELS[c])
            assert found.spectrum_errors[row, c] == pytest.approx(change, abs=rtol)
            assert found.ranks[row, c] == truncation_rank(spectrum(fewer), 0.1)
    assert found.reference_ranks.tolist() == found.ranks[-1].tolist()
    assert "reference" in str(found)


def test_errors_of_projections_fall_with_the_root_of_their_dimension():
    """Against kernels without a projection, for Gaussian features."""
    exact = DRAW.standard_normal((M, O, 400))
    kernels = np.stack([exact[:, c] @ exact[:, c].T for c in range(O)])
    features = exact @ DRAW.standard_normal((400, 2048)) / 2048**0.5
    errors = parameter_redundancy(features, [32, 128, 512, 2048], kernels).kernel_errors.mean(axis=1)
    slope = np.polyfit(np.log([32, 128, 512, 2048]), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


def test_containment_is_the_weighted_share_of_local_eigenvectors_in_global_ones(namespace):
    parts = decompose(asarray(namespace, FEATURES), np.arange(M) % 4)
    found = containment(parts, 6)
    top = np.linalg.eigh(MEAN)[1][:, ::-1]
    rtol = accuracy(parts.vectors)
    total = 0.0
    for h in range(4):
        inside = np.flatnonzero(np.arange(M) % 4 == h)
        block = MEAN[np.ix_(inside, inside)]
        values, local = np.linalg.eigh(block)
        for r in range(1, 7):
            shares = np.sum((local.T @ top[inside, :r]) ** 2, axis=1)
            assert found.curves[h, r - 1] == pytest.approx(values @ shares / values.sum(), abs=rtol)
        rows = top[inside, :6]
        np.testing.assert_allclose(found.heat[h], np.diag(rows.T @ block @ rows) / np.trace(block), atol=rtol)
        total += values @ shares
    assert found.overall[-1] == pytest.approx(total / np.trace(MEAN), abs=rtol)
    assert found.gap == pytest.approx(1 - total / np.trace(MEAN), abs=rtol)
    whole = containment(parts, M)
    np.testing.assert_allclose(whole.curves[:, -1], 1, atol=rtol)
    assert containment(parts, variance=0.8).heat.shape[1] == truncation_rank(spectrum(MEAN), 0.2)


def test_a_cluster_without_gradients_contains_nothing():
    features = FEATURES.copy()
    features[3:6] = 0
    found = containment(decompose(features, np.where((np.arange(M) >= 3) & (np.arange(M) < 6), 1, 0)), 5)
    np.testing.assert_array_equal(found.heat[1], 0)
    np.testing.assert_allclose(found.weights, [1, 0])
    assert 0 <= found.gap < 1


def test_kept_variance_is_the_trace_in_the_span(namespace):
    parts = decompose(asarray(namespace, FEATURES), 2)
    keep = [2, 5, 7]
    assert kept_variance(parts, chosen(M, keep)) == pytest.approx(np.diag(MEAN)[keep].sum() / np.trace(MEAN), rel=1e-3)
    best = kept_variance(parts, global_eigenvectors(parts, 3))
    assert best == pytest.approx(spectrum(MEAN)[:3].sum() / np.trace(MEAN), rel=1e-3)


def test_metrics_count_and_average(namespace):
    predicted, teacher = (asarray(namespace, a) for a in (PREDICTED, TEACHER))
    labels = TEACHER.argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 4
    found = evaluate(predicted, teacher, asarray(namespace, labels))
    same = np.mean(PREDICTED.argmax(axis=1) == TEACHER.argmax(axis=1))
    assert found.fidelity == pytest.approx(same)
    assert fidelity(teacher, teacher) == 1
    assert found.accuracy == pytest.approx(np.mean(PREDICTED.argmax(axis=1) == labels))
    assert found.teacher_accuracy == pytest.approx(17 / 20)
    assert found.logit_mse == pytest.approx(np.mean((PREDICTED - TEACHER) ** 2), rel=1e-6)
    plain = evaluate(predicted, teacher)
    assert plain.accuracy is None
    assert set(plain.to_dict()) == {"fidelity", "logit_mse"}
    assert "logit mse" in str(found)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_conditioning_is_that_of_class_kernels(namespace, scale):
    features = FEATURES.copy()
    features[:, 2] = features[:1, 2]
    found = conditioning(asarray(namespace, (features * scale).astype("float32")))
    for c in range(2):
        values = spectrum(KERNELS[c])
        assert found.largest[c] == pytest.approx(scale**2 * values[0], rel=2e-3)
        assert found.smallest[c] == pytest.approx(scale**2 * values[-1], rel=2e-2)
        assert found.condition_numbers[c] == pytest.approx(values[0] / values[-1], rel=2e-2)
    assert math.isinf(found.condition_numbers[2])


def test_each_result_has_its_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    features = FEATURES.copy()
    features[:, 1] = 0
    redundancy = data_redundancy(features)
    axes = plots.plot_spectra(redundancy)
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == [redundancy.ranks[0], redundancy.ranks[2], redundancy.mean_rank]
    found = containment(decompose(features, 3), 5)
    np.testing.assert_allclose(plots.plot_containment(found).lines[-1].get_ydata(), found.overall)
    np.testing.assert_allclose(plots.plot_heat_map(found).images[0].get_array(), found.heat)
    survey = parameter_redundancy(FEATURES, [3, 10])
    np.testing.assert_allclose(
        plots.plot_parameter_redundancy(survey).lines[0].get_ydata(), survey.kernel_errors.mean(1)
    )
    labels = TEACHER.argmax(axis=1)
    metrics = [evaluate(PREDICTED, TEACHER), evaluate(TEACHER, TEACHER, labels)]
    assert len(plots.plot_ranks([1, 2], metrics).lines) == 1
    ranks = plots.plot_ranks([1, 2], metrics[1:] * 2)
    assert [line.get_label() for line in ranks.lines] == ["fidelity", "accuracy"]
    fresh = matplotlib.pyplot.figure().subplots()
    assert plots.plot_ranks([1, 2], metrics, fresh) is fresh
    matplotlib.pyplot.close("all")


PARTS = decompose(FEATURES, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data_redundancy(FEATURES, 1.5), "share= takes"),
        (lambda: data_redundancy(FEATURES, "all"), "share= takes"),
        (lambda: data_redundancy(0 * FEATURES), "all features are zero"),
        (lambda: parameter_redundancy(FEATURES, [K + 1]), f"from 1 to the {K} dimensions"),
        (lambda: parameter_redundancy(FEATURES, 2.5), "numbers of dimensions"),
        (lambda: parameter_redundancy(FEATURES, [3], MEAN), "reference= takes"),
        (lambda: containment(PARTS, 0), "size=0"),
        (lambda: containment(PARTS, variance=2), "variance= takes"),
        (lambda: kept_variance(PARTS, chosen(M + 1, [0])), "the compression is of 16 examples"),
        (lambda: fidelity(PREDICTED, TEACHER[:5]), "have one shape"),
        (lambda: fidelity(PREDICTED[:, :1], TEACHER[:, :1]), "there is only one"),
        (lambda: fidelity(PREDICTED, asarray("array_api_strict", TEACHER)), "convert one of them"),
        (lambda: rate(PREDICTED, TEACHER[:, 0]), "labels are integers"),
        (lambda: rate(PREDICTED, np.zeros(5, dtype=int)), "labels are integers"),
        (lambda: logit_mse(PREDICTED * np.nan, TEACHER), "NaN or infinity"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()
