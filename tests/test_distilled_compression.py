"""Clusters, coverage and compression of tangent features, against their definitions in NumPy."""

import numpy as np
import pytest

import ntkest
from ntkest.distilled.analysis import containment
from ntkest.distilled.compression import chosen
from ntkest.distilled.decomposition import decompose
from ntkest.distilled.dimensions import parameter_redundancy
from ntkest.distilled.kernels import class_kernels, mean_kernel
from ntkest.distilled.local_global import compress, global_eigenvectors, local_global
from ntkest.distilled.metrics import conditioning
from ntkest.distilled.prediction import class_ridge, rank_curve
from ntkest.distilled.truncation import data_redundancy
from tests.arrays import NAMESPACES, accuracy, asarray

M, O, K = 24, 3, 40  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
GROUPS = np.arange(M) % 3
CENTRES = DRAW.standard_normal((3, O, K))
ACROSS = np.arange(M) // 8
"""Other clusters, each with some of every group."""
FEATURES = (
    2 * CENTRES[GROUPS]
    + DRAW.standard_normal((1, O, K))
    + DRAW.standard_normal((M, O, K)) * np.arange(1, K + 1) ** -0.5
)
TARGETS = DRAW.standard_normal((M, O))
KERNELS = np.stack([FEATURES[:, c] @ FEATURES[:, c].T for c in range(O)])
MEAN = KERNELS.mean(axis=0)
FLAT = DRAW.standard_normal((M, O, K))
"""Without any structure, so that local eigenvectors cover global ones badly."""


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return request.param


def projector(vectors):
    basis = np.linalg.qr(np.asarray(vectors, dtype=float))[0]
    return basis @ basis.T


def leading(kernel, share):
    """Eigenvectors that carry a share of the trace."""
    values, vectors = np.linalg.eigh(kernel)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = next(r for r in range(len(values) + 1) if values[:r].sum() >= share * values.sum() - 1e-12)
    return vectors[:, :count]


def test_kernels_are_products_of_features(namespace):
    features = asarray(namespace, FEATURES)
    kernels, mean = class_kernels(features), mean_kernel(features)
    np.testing.assert_allclose(np.asarray(kernels), KERNELS, atol=accuracy(kernels) * KERNELS.max())
    np.testing.assert_allclose(np.asarray(mean), MEAN, atol=accuracy(mean) * MEAN.max())
    scaled = mean_kernel(features, 4.0)
    np.testing.assert_allclose(np.asarray(scaled), MEAN / 16, atol=accuracy(mean) * MEAN.max())


def test_spectral_clustering_finds_separate_groups(namespace):
    found = decompose(asarray(namespace, FEATURES), 3).clusters
    np.testing.assert_array_equal(found, GROUPS)


def test_clusters_may_be_given_and_the_seed_draws_others():
    labels = np.array([7, 3, 3, 9] * 6)
    np.testing.assert_array_equal(decompose(FEATURES, labels).clusters, np.array([1, 0, 0, 2] * 6))
    flat = DRAW.standard_normal((M, O, K))
    first, again, other = (decompose(flat, 5, seed).clusters for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert sorted(set(first)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["additive", "best", "unnormalised"])
def test_thresholds_take_local_eigenvectors_and_gaps(namespace, kind):
    """Against padded eigenvectors, and coverage by its definition; half of the global ones are gaps."""
    mean = np.einsum("iok,jok->ij", FLAT, FLAT) / O
    top, local, covers = leading(mean, 0.7), [], []
    for h in range(3):
        inside = np.flatnonzero(h == ACROSS)
        vectors = leading(mean[np.ix_(inside, inside)], 0.7)
        local.append(np.zeros((M, vectors.shape[1])))
        local[-1][inside] = vectors
        part = np.sum((vectors.T @ top[inside]) ** 2, axis=0)
        covers.append(part / np.sum(top[inside] ** 2, axis=0) if kind == "best" else part)
    covers = np.sum(covers, axis=0) if kind == "additive" else np.max(covers, axis=0)
    middle = np.sort(covers)[len(covers) // 2 - 1 : len(covers) // 2 + 1]
    assert middle[1] - middle[0] > 1e-3
    options = {"variance": 0.7, "coverage_threshold": float(middle.mean()), "coverage": kind}
    found = local_global(asarray(namespace, FLAT), clusters=ACROSS, **options)
    np.testing.assert_allclose(found.coverage, covers, atol=accuracy(found.vectors))
    wanted = np.concatenate([*local, top[:, covers < middle.mean()]], axis=1)
    counts = found.kinds.count("local"), found.kinds.count("gap")
    assert counts == (sum(block.shape[1] for block in local), len(covers) // 2)
    np.testing.assert_allclose(projector(found.vectors), projector(wanted), atol=50 * accuracy(found.vectors))


def test_without_orthonormality_columns_are_the_eigenvectors_themselves():
    straight, raw = (
        local_global(FEATURES, variance=0.95, coverage_threshold=1.0, clusters=ACROSS, orthonormal=o)
        for o in (True, False)
    )
    assert straight.kinds == raw.kinds
    np.testing.assert_allclose(projector(straight.vectors), projector(raw.vectors), atol=1e-9)
    np.testing.assert_allclose(straight.vectors.T @ straight.vectors, np.eye(straight.size), atol=1e-12)
    gaps = raw.vectors[:, [kind == "gap" for kind in raw.kinds]]
    product = MEAN @ gaps
    np.testing.assert_allclose(product, gaps * np.sum(gaps * product, axis=0), atol=1e-9 * MEAN.max())
    for column in raw.vectors[:, [kind == "local" for kind in raw.kinds]].T:
        assert len(set(raw.clusters[np.abs(column) > 1e-12])) == 1


def test_a_target_size_takes_what_keeps_most_one_after_the_other():
    """Against a loop over explicit projectors."""
    parts = decompose(FEATURES, ACROSS)
    top = np.linalg.eigh(MEAN)[1][:, ::-1]
    local = []
    for members in parts.members:
        block = np.linalg.eigh(MEAN[np.ix_(members, members)])[1]
        padded = np.zeros((M, len(members)))
        padded[members] = block
        local.append(padded)
    local = np.concatenate(local, axis=1)

    def kept(basis, candidates):
        rest = candidates - basis @ (basis.T @ candidates)
        lengths = np.sum(rest**2, axis=0)
        gains = np.einsum("ij,ik,kj->j", rest, MEAN, rest) / np.where(lengths > 1e-12, lengths, np.inf)
        best = int(np.argmax(gains))
        return gains[best], rest[:, best : best + 1] / lengths[best] ** 0.5

    for threshold in (0.0, 0.5, 0.6, 1.0):
        basis, kinds = np.zeros((M, 0)), []
        for _ in range(10):
            here, there = kept(basis, local), kept(basis, top)
            kinds.append("local" if here[0] >= threshold * there[0] else "gap")
            basis = np.concatenate([basis, (here if kinds[-1] == "local" else there)[1]], axis=1)
        found = compress(parts, 10, coverage_threshold=threshold)
        assert found.kinds == tuple(kinds)
        np.testing.assert_allclose(projector(found.vectors), projector(basis), atol=1e-8)
    assert len(set(compress(parts, 10).kinds)) == 2
    assert compress(parts, 10).kinds == compress(parts, 10, coverage_threshold=0.5).kinds


@pytest.mark.parametrize("size", [None, 7])
def test_all_namespaces_span_the_same(namespace, size):
    options = {"size": size, "clusters": 3}
    found, wanted = local_global(asarray(namespace, FEATURES), **options), local_global(FEATURES, **options)
    assert found.kinds == wanted.kinds
    assert type(found.vectors) is type(asarray(namespace, FEATURES))
    np.testing.assert_array_equal(found.clusters, wanted.clusters)
    np.testing.assert_allclose(projector(found.vectors), projector(wanted.vectors), atol=10 * accuracy(found.vectors))
    np.testing.assert_allclose(found.coverage, wanted.coverage, atol=10 * accuracy(found.vectors))
    best = global_eigenvectors(asarray(namespace, FEATURES), 3)
    np.testing.assert_allclose(
        projector(best.vectors), projector(global_eigenvectors(FEATURES, 3).vectors), atol=10 * accuracy(best.vectors)
    )


def test_synthetic_gradients_are_weighted_sums(namespace):
    features, targets = asarray(namespace, FEATURES), asarray(namespace, TARGETS)
    for compression in (local_global(features, 5, clusters=3), chosen(M, [4, 0, 9])):
        made, aims = compression.apply(features, targets)
        vectors = np.asarray(compression.vectors)
        atol = 10 * accuracy(made)
        np.testing.assert_allclose(np.asarray(made), np.einsum("ms,mok->sok", vectors, FEATURES), atol=atol)
        np.testing.assert_allclose(np.asarray(aims), vectors.T @ TARGETS, atol=atol)
        assert made.dtype == features.dtype


def test_chosen_examples_stay_as_they_are():
    made, aims = chosen(M, np.array([4, 0, 9])).apply(FEATURES, TARGETS)
    np.testing.assert_array_equal(made, FEATURES[[4, 0, 9]])
    np.testing.assert_array_equal(aims, TARGETS[[4, 0, 9]])


def test_a_compression_of_one_namespace_is_not_applied_in_another():
    with pytest.raises(ntkest.NTKError, match="convert one of them"):
        local_global(asarray("array_api_strict", FEATURES), 3, clusters=2).apply(FEATURES, TARGETS)


def test_everything_stays_on_the_device_of_the_features():
    strict = pytest.importorskip("array_api_strict")
    other = strict.Device("device1")
    features, targets = (strict.asarray(a, device=other) for a in (FEATURES, TARGETS))
    for size in (None, 6):
        found = local_global(features, size, clusters=3)
        made, aims = found.apply(features, targets)
        ranked = rank_curve(made, aims, [2])[0]
        for array in (found.vectors, made, aims, class_ridge(made, aims).predict(features), ranked.predict(features)):
            assert array.device == other
    assert chosen(M, [1, 2]).apply(features, targets)[0].device == other
    assert containment(decompose(features, 3), 4).heat.shape == (3, 4)
    assert len(data_redundancy(features).ranks) == len(conditioning(features).smallest) == O
    assert parameter_redundancy(features, [5], class_kernels(features)).ranks.shape == (1, O)


@pytest.mark.parametrize("scale", [1e-10, 1e10, 1e-18, 1e18])
def test_the_scale_of_float32_features_does_not_matter(namespace, scale):
    small = FEATURES.astype("float32")
    plain, scaled = (local_global(asarray(namespace, small * np.float32(s)), 6, clusters=3) for s in (1, scale))
    assert plain.kinds == scaled.kinds
    np.testing.assert_allclose(projector(plain.vectors), projector(scaled.vectors), atol=2e-2)


def test_a_low_rank_gives_fewer_columns(namespace):
    low = np.einsum("mr,rok->mok", DRAW.standard_normal((M, 4)), DRAW.standard_normal((4, O, K)))
    features = asarray(namespace, low)
    assert global_eigenvectors(features, 10).size == 4
    assert local_global(features, 10, clusters=2).size == 4
    assert decompose(features, 2).rank == 4
    everything = local_global(features, variance=1.0, clusters=np.arange(M) % 2)
    assert everything.kinds.count("local") == 2 * 4


def test_duplicates_and_classes_without_gradients_do_no_harm():
    features = np.concatenate([FEATURES, FEATURES])
    features[:, 1] = 0
    for size in (None, M):
        found = local_global(features, size, clusters=4)
        np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(found.size), atol=1e-10)
        assert found.size <= 2 * M


def test_examples_without_gradients_have_a_cluster_and_no_direction():
    features = FEATURES.copy()
    features[5:8] = 0
    found = local_global(features, clusters=3)
    assert np.abs(found.vectors[5:8]).max() < 1e-12
    alone = local_global(features, clusters=np.where((np.arange(M) >= 5) & (np.arange(M) < 8), 1, 0))
    assert np.abs(alone.vectors[5:8]).max() < 1e-12


def test_as_many_clusters_as_examples_may_be_asked_for():
    found = local_global(FEATURES, clusters=M)
    assert found.kinds.count("local") == M
    assert found.kinds.count("gap") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_global(FEATURES.tolist(), 3), "an array"),
        (lambda: local_global(FEATURES[:, 0], 3), "have shape"),
        (lambda: local_global(FEATURES.astype(int), 3), "real floating"),
        (lambda: local_global(FEATURES * np.nan, 3), "NaN or infinity"),
        (lambda: local_global(FEATURES * 0, 3), "all features are zero"),
        (lambda: local_global(FEATURES, 3, clusters=M + 1), f"{M} examples make 1 to {M} clusters"),
        (lambda: local_global(FEATURES, 3, clusters=0), "clusters=0"),
        (lambda: local_global(FEATURES, 3, clusters="ten"), "clusters= takes"),
        (lambda: local_global(FEATURES, 3, clusters=[0, 1]), "got shape"),
        (lambda: local_global(FEATURES, 3, clusters=np.full(M, 0.5)), "an integer for each"),
        (lambda: local_global(FEATURES, 0), "size=0"),
        (lambda: local_global(FEATURES, M + 1), "can be made"),
        (lambda: local_global(FEATURES, 2.5), "size= takes"),
        (lambda: local_global(FEATURES, 3, variance=0.9), "not both"),
        (lambda: local_global(FEATURES, variance=1.5), "variance= takes"),
        (lambda: local_global(FEATURES, coverage_threshold="all"), "coverage_threshold= takes"),
        (lambda: local_global(FEATURES, coverage="most"), "one of additive"),
        (lambda: local_global(FEATURES, orthonormal=1), "orthonormal= takes"),
        (lambda: local_global(FEATURES, 3, seed=-1), "seed="),
        (lambda: global_eigenvectors(FEATURES, M + 1), "can be made"),
        (lambda: chosen(M, [1, 1]), "each once"),
        (lambda: chosen(M, [M]), "each once"),
        (lambda: chosen(M, []), "by their indices|each once"),
        (lambda: chosen(M, [0.5]), "integers"),
        (lambda: chosen(M, [0]).apply(FEATURES[:5], TARGETS[:5]), "a compression of 24 examples"),
        (lambda: chosen(M, [0]).apply(FEATURES, TARGETS[:, :2]), "a compression of 24 examples"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()
