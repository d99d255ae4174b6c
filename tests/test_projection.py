"""Random projections of gradients, against products with explicit matrices."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.projection import project_gradients
from ntkest.projection.backward import EveryOutput, InRanges, Within, backward
from ntkest.projection.forward import Forward
from ntkest.projection.kinds import random_matrix
from ntkest.projection.posing import posed
from tests import networks, projections
from tests.arrays import NAMESPACES, asarray
from tests.projections import KINDS

N, O, P = 7, 3, 150  # noqa: E741 - the number of outputs of an example
A = np.random.default_rng(0).standard_normal((N * O, P))
SIZES = (90, 37, 23)
BLOCKS = dict(zip("abc", np.split(A, np.cumsum(SIZES)[:-1], axis=1), strict=True))
J = ntkest.from_jacobian(BLOCKS, output_shape=(N, O))


@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_is_pinned(kind):
    """Other values here break every feature that somebody kept: a breaking change."""
    found = random_matrix(70, kind, 7, 1000).tile(1, (5, 7), (0, 70))
    if kind == "sjlt":
        assert [[int(i * row[i]) for i in np.flatnonzero(row)] for row in found] == GOLDEN[kind]
    else:
        np.testing.assert_allclose(found[:, 62:67], GOLDEN[kind], rtol=1e-6)


@pytest.mark.parametrize("dim", [1, 3, 70, 130])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_products_with_the_matrix(kind, dim):
    Q = projections.matrix(kind, SIZES, dim, seed=5)
    found = ntkest.project(J, dim, kind, 5)
    assert found.shape == (N, O, dim)
    np.testing.assert_allclose(found, (A @ Q).reshape(N, O, dim), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_all_backends_have_the_same_numbers(backend, kind):
    J, jacobian = networks.mlp(backend, (3, 20, 2), N=5)
    Q = projections.matrix(kind, [p.size for p in network_blocks((3, 20, 2))], 67, seed=1)
    found = np.asarray(ntkest.project(J, 67, kind, 1))
    precise = found.dtype == np.float64
    np.testing.assert_allclose(found.reshape(10, 67), jacobian @ Q, rtol=0, atol=1e-12 if precise else 1e-5)


def network_blocks(sizes):
    return [array for layer in networks.network(sizes).params for array in layer]


@pytest.mark.parametrize("kind", KINDS)
def test_any_part_of_the_matrix_is_the_same(kind):
    matrix = random_matrix(150, kind, 3, 10_000)
    whole = matrix.tile(1, (0, 500), (0, 150))
    for rows, columns in (((0, 1), (0, 1)), ((3, 77), (63, 65)), ((130, 500), (64, 150)), ((9, 9), (0, 150))):
        part = matrix.tile(1, rows, columns)
        np.testing.assert_array_equal(part, whole[slice(*rows), slice(*columns)])
    for other in (matrix.tile(0, (0, 500), (0, 150)), replace(matrix, seed=4).tile(1, (0, 500), (0, 150))):
        assert not np.array_equal(whole, other)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_fewer_columns_are_the_beginning_of_more(kind):
    few, many = ntkest.project(J, 40, kind) * 40**0.5, ntkest.project(J, 140, kind) * 140**0.5
    np.testing.assert_allclose(few, many[..., :40], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_threads_do_not_change_the_matrix(kind, monkeypatch):
    from ntkest import threads

    alone, together = (random_matrix(700, kind, 0, 10**6) for _ in range(2))
    monkeypatch.setattr(threads, "threads", lambda: 1)
    expected = alone.tile(0, (3, 2000), (10, 700))
    monkeypatch.setattr(threads, "threads", lambda: 3)
    np.testing.assert_array_equal(together.tile(0, (3, 2000), (10, 700)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", [40_000, 60_000])
def test_features_do_not_depend_on_the_memory(kind, memory):
    seen = []
    found = ntkest.project(J, 80, kind, memory=memory, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found, ntkest.project(J, 80, kind), rtol=1e-12, atol=1e-12)
    assert len(seen) > 1
    assert seen == [(n + 1, len(seen)) for n in range(len(seen))]


class Only:
    """A linearization without some of its abilities."""

    def __init__(self, inner, *hidden, modes=("jvp", "vjp")):
        self.inner, self.hidden, self.modes = inner, hidden, frozenset(modes)

    def __getattr__(self, name):
        if name in self.hidden:
            raise AttributeError(name)
        return getattr(self.inner, name)


WAYS = {
    InRanges: Only(J, modes=["vjp"]),
    Within: Only(J, "uses", modes=["vjp"]),
    EveryOutput: Only(J, "uses", "map_example_vjp", modes=["vjp"]),
    Forward: Only(J, modes=["jvp"]),
}


@pytest.mark.parametrize("memory", ["1GB", 80_000])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_gives_the_same_features(kind, way, memory):
    found = ntkest.project(WAYS[way], 100, kind, memory=memory)
    assert type(posed(WAYS[way], 100, kind, 0).source) is way
    np.testing.assert_allclose(found, ntkest.project(J, 100, kind), rtol=1e-12, atol=1e-12)


def test_examples_may_lie_along_any_axis(framework):
    as_array, _ = networks._tools(framework, "tanh")
    weights, x = as_array(A[:4, :12].T.astype(np.float32)), A[5:10, :12].astype(np.float32)
    straight = ntkest.linearize(lambda p, x: x @ p["w"], {"w": weights}, as_array(x), batch_axis=0)
    turned = ntkest.linearize(lambda p, x: p["w"].T @ x, {"w": weights}, as_array(x.T), batch_axis=1)
    expected = np.asarray(ntkest.project(straight, 40))
    for found in (turned, Only(turned, modes=["jvp"]), Only(turned, "uses", "map_example_vjp", modes=["vjp"])):
        np.testing.assert_allclose(np.asarray(ntkest.project(found, 40)), expected, rtol=0, atol=1e-5)


# Blocks in factors ----------------------------------------------------------------------------------------------------


class Factors:
    """A linearization whose gradients come in factors, or in the rows that these make."""

    modes, passes_per_jvp, exponent, xp = frozenset({"vjp"}), 1, 0, np

    def __init__(self, blocks, sizes, outputs, rows=False):
        self.blocks, self.rows = blocks, rows
        self.params = [np.zeros(size) for size in sizes]
        self.param_names = [str(i) for i in range(len(sizes))]
        n = blocks[0][1].shape[1]
        self.outputs, self.examples = np.zeros((n, outputs)), (0, n)

    def map_example_vjp(self, *arguments, **keywords):
        raise AssertionError

    def uses(self, cotangents, start, stop):
        cut = [tuple(side[:, start:stop] for side in block) for block in self.blocks]
        sizes = [param.size for param in self.params]
        return tuple(multiplied_out(b, size) if self.rows else b for b, size in zip(cut, sizes, strict=True))


def multiplied_out(block, size):
    left, right = block
    if left.ndim < right.ndim:
        left = np.eye(size // right.shape[3])[left]
    k = max(left.shape[0], right.shape[0])
    left, right = (np.broadcast_to(side, (k, *side.shape[1:])) for side in (left, right))
    return np.einsum("knsp,knsq->knpq", left, right).reshape(k, left.shape[1], -1)


def layer(draw, k, n, positions, p, q, inputs):
    """Factors of a layer: inputs are common to all k cotangents."""
    leads = {"left": (1, k), "right": (k, 1), "neither": (k, k)}
    if inputs == "looked up":
        return draw.integers(0, p, (1, n, positions)), draw.standard_normal((k, n, positions, q))
    return tuple(
        draw.standard_normal((lead, n, positions, size)) for lead, size in zip(leads[inputs], (p, q), strict=True)
    )


@pytest.mark.parametrize("inputs", ["left", "right", "neither", "looked up"])
@pytest.mark.parametrize("positions", [1, 2, 40])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["1GB", 400_000])
def test_factors_give_what_their_rows_do(kind, positions, inputs, memory):
    """With few positions and a common factor without making the rows, else through them."""
    draw, k, n = np.random.default_rng(positions), 6, 5
    blocks = [layer(draw, k, n, positions, p, q, inputs) for p, q in ((8, 5), (1, 9), (11, 1), (3, 70))]
    sizes = [40, 9, 11, 210]
    J = Factors(blocks, sizes, k)
    found = ntkest.project(J, 100, kind, memory=memory)
    rows = np.concatenate([multiplied_out(b, size) for b, size in zip(blocks, sizes, strict=True)], axis=2)
    wanted = rows.transpose(1, 0, 2) @ projections.matrix(kind, sizes, 100)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ntkest.project(Factors(blocks, sizes, k, rows=True), 100, kind), wanted, atol=1e-10)


@pytest.mark.parametrize("inputs", ["left", "right"])
@pytest.mark.parametrize("sizes", [(150, 350), (350, 150), (3000, 5), (5, 3000)], ids=str)
def test_large_layers_keep_to_their_memory(inputs, sizes):
    """The matrix of the projection alone would be several times as large."""
    draw, n = np.random.default_rng(0), 60
    block, memory = layer(draw, 10, n, 1, *sizes, inputs), 12_000_000
    assert sizes[0] * sizes[1] * 600 * 8 > 5 * memory
    J = Factors([block], [sizes[0] * sizes[1]], 10)
    ntkest.project(J, 600, memory=memory)
    tracemalloc.start()
    found = ntkest.project(J, 600, memory=memory)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < memory + found.nbytes
    wanted = ntkest.project(Factors([block], [sizes[0] * sizes[1]], 10, rows=True), 600)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_the_cheaper_way_is_taken():
    from ntkest.projection.blocks import in_factors

    draw = np.random.default_rng(0)
    assert in_factors(layer(draw, 10, 3, 1, 30, 20, "left"), 600, 100)
    assert in_factors(layer(draw, 10, 3, 1, 30, 20, "right"), 600, 100)
    assert not in_factors(layer(draw, 10, 3, 12, 30, 20, "right"), 600, 100)
    assert not in_factors(layer(draw, 10, 3, 1, 30, 20, "neither"), 600, 100)
    assert not in_factors(draw.standard_normal((10, 3, 600)), 600, 100)
    many, few = (ntkest.from_jacobian(np.ones((2 * n, 9)), output_shape=(2, n)) for n in (100, 5))
    for wide, way in ((many, Forward), (few, InRanges)):
        assert type(posed(wide, 9, "rademacher", 0).source) is way
    assert type(posed(many, 9, "sjlt", 0).source) is Forward
    assert type(backward(J)) is InRanges


def test_rows_that_are_not_looked_up_are_not_made():
    """Of a table with a million rows two are used."""
    right = np.random.default_rng(0).standard_normal((2, 1, 2, 3))
    J = Factors([(np.array([[[7, 999_999]]]), right)], [3_000_000], 2)
    found = ntkest.project(J, 64, memory="100MB")
    tiles = [random_matrix(64, "rademacher", 0, 10**6).tile(0, (3 * i, 3 * i + 3), (0, 64)) for i in (7, 999_999)]
    np.testing.assert_allclose(found[0], sum(right[:, 0, i] @ tiles[i] for i in (0, 1)) / 8, rtol=1e-12)


# Given gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_given_gradients_have_the_features_of_project(namespace, kind):
    blocks = [block.reshape(N, O, -1).astype(np.float32) for block in BLOCKS.values()]
    expected = ntkest.project(J, 60, kind)
    found = project_gradients([asarray(namespace, block) for block in blocks], 60, kind)
    assert type(found) is type(asarray(namespace, blocks[0]))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=2e-5)
    whole = ntkest.from_jacobian(A, output_shape=(N, O))
    np.testing.assert_allclose(project_gradients(A, 60, kind), ntkest.project(whole, 60, kind).reshape(-1, 60))
    np.testing.assert_allclose(project_gradients(A[2], 60, kind), project_gradients(A, 60, kind)[2], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_made_in_float32_at_least(kind):
    halves = np.ones((2, 40_000), np.float16)
    found = project_gradients(halves, 50, kind)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, project_gradients(halves.astype(np.float64), 50, kind), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_is_never_there(kind):
    """It would have 640 MB."""
    gradients = np.random.default_rng(0).standard_normal((2, 80_000), dtype=np.float32)
    tracemalloc.start()
    project_gradients(gradients, 2000, kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_memory_is_kept_to():
    J = ntkest.from_jacobian(np.ones((400, 4000), np.float32), output_shape=(100, 4))
    peaks = []
    for memory in (4_000_000, 16_000_000):
        ntkest.project(J, 500, memory=memory)
        tracemalloc.start()
        ntkest.project(J, 500, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < memory + 800_000  # the features
    assert peaks[0] < peaks[1]


# The law of the features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_have_no_bias_and_errors_fall_as_the_root_of_dim(kind):
    """Of the Johnson-Lindenstrauss kind: relative errors c/√dim with c² = 1 + cos² or, without normal tails, less."""
    draw = np.random.default_rng(1)
    gradients = draw.standard_normal((8, 2000)) + draw.standard_normal(2000)
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    wanted, dims, seeds = gradients @ gradients.T, [16, 32, 64, 128, 256, 512], 24
    errors, means = [], []
    for dim in dims:
        found = []
        for seed in range(seeds):
            features = project_gradients(gradients, dim, kind, seed)
            found.append(features @ features.T - wanted)
        errors.append(np.sqrt(np.mean(np.square(found))))
        means.append(np.abs(np.mean(found, axis=0)).max() * dim**0.5)
    slope = np.polyfit(np.log(dims), np.log(errors), 1)[0]
    assert -0.56 < slope < -0.44
    expected = np.sqrt(np.mean(1 + wanted**2))
    assert np.abs(np.array(errors) * np.sqrt(dims) / expected - 1).max() < 0.2
    assert max(means) < 5 * 2**0.5 / seeds**0.5


def test_signs_and_normal_numbers_are_what_they_are_called():
    signs, normal = (random_matrix(256, kind, 11, 10**4).tile(0, (0, 4096), (0, 256)) for kind in KINDS[:2])
    for entries in (signs, normal):
        gram = entries.T @ entries / 4096
        assert abs(entries.mean()) < 5 / 1024
        assert np.abs(gram - np.eye(256))[~np.eye(256, dtype=bool)].max() < 6 / 64
        across = entries @ entries.T / 256
        assert np.abs(across - np.eye(4096))[~np.eye(4096, dtype=bool)].max() < 7 / 16
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert abs((normal**4).mean() - 3) < 0.05


def test_rows_of_a_sparse_matrix_have_a_sign_in_each_part():
    matrix = random_matrix(70, "sjlt", 0, 10**4)
    entries = matrix.tile(0, (0, 3000), (0, 70))
    bounds = [0, 17, 35, 52, 70]
    counts = np.add.reduceat(np.abs(entries), bounds[:-1], axis=1)
    np.testing.assert_array_equal(counts, 1)
    assert np.abs(np.abs(entries).sum(axis=0) - 3000 / 17.5).max() < 6 * (3000 / 17.5) ** 0.5
    assert abs(entries.sum()) < 5 * (4 * 3000) ** 0.5
    run = np.abs(entries[: 17 * 100]).reshape(100, 17, 70).sum(axis=1)
    assert run.max() == 1


# Many examples, and what can be wrong ---------------------------------------------------------------------------------


def test_batches_have_the_features_of_the_whole(framework):
    net = networks.network((4, 30, 3), N=8)
    as_array, activation = networks._tools(framework, net.activation)

    def forward(params, x):
        for weight, bias in params[:-1]:
            x = activation(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    params = [(as_array(weight), as_array(bias)) for weight, bias in net.params]
    batches = [as_array(net.x[start : start + 3]) for start in (0, 3, 6)]
    stream = ntkest.linearize_batches(forward, params, batches)
    expected = np.asarray(ntkest.project(networks.linearized(net, framework), 90, "sjlt", 2))
    for memory in ("1GB", 250_000):
        found = np.asarray(ntkest.project(stream, 90, "sjlt", 2, memory=memory))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


BROKEN = A.copy()
BROKEN[[2 * O, 5 * O + 1], 7] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntkest.project(J, P + 1), "dim=151 is above the 150 parameters"),
        (lambda: ntkest.project(J, 0), "dim= takes a positive integer, not 0"),
        (lambda: ntkest.project(J, 2.0), "dim= takes a positive integer"),
        (lambda: ntkest.project(J, True), "dim= takes a positive integer"),
        (lambda: ntkest.project(J, 5, "fourier"), "kind= takes 'rademacher', 'gaussian', 'sjlt', not 'fourier'"),
        (lambda: ntkest.project(J, 5, None), "kind= takes"),
        (lambda: ntkest.project(J, 5, seed=-1), "seed= takes"),
        (lambda: ntkest.project(J, 5, seed="a"), "seed= takes"),
        (lambda: ntkest.project(J, 5, memory=0), "memory= takes"),
        (lambda: ntkest.project(J, 5, progress=3), "progress= takes"),
        (lambda: ntkest.project(A, 5), "a linearization is wanted"),
        (lambda: ntkest.project(ntkest.from_jacobian(A), 5), "batch_axis="),
        (lambda: ntkest.project(Only(J, modes=[]), 5), "forward or reverse mode"),
        (lambda: project_gradients(A, P + 1), "above the 150 parameters"),
        (lambda: project_gradients([], 5), "gradients are an array"),
        (lambda: project_gradients(3.0, 5), "gradients are an array"),
        (lambda: project_gradients([A, A[:2]], 5), "same axes in front"),
        (lambda: project_gradients(A.astype(int), 5), "real floating point"),
        (lambda: project_gradients([A, array_api_strict.asarray(A)], 5), "one array namespace"),
        (lambda: project_gradients(BROKEN.reshape(N, O, P), 5), r"examples 2, 5 are NaN or infinite"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()


@pytest.mark.parametrize("memory", ["1GB", 60_000])
@pytest.mark.parametrize("way", ["backward", "forward"])
def test_examples_with_features_that_are_not_finite_are_named(way, memory):
    class Broken(Only):
        def map_jvp(self, *arguments):
            return np.where(np.isnan(BROKEN[:, 7]), np.nan, self.inner.map_jvp(*arguments))

        def uses(self, cotangents, start, stop):
            return (BROKEN.reshape(N, O, P).transpose(1, 0, 2)[:, start:stop],)

    whole = Broken(ntkest.from_jacobian(A, output_shape=(N, O)), modes=["vjp" if way == "backward" else "jvp"])
    with pytest.raises(ntkest.NTKError, match=r"features of examples 2(, 5)? are NaN or infinite"):
        ntkest.project(whole, 10, memory=memory)


def test_too_little_memory_says_how_much_is_needed():
    for way in (J, WAYS[Forward], WAYS[Within]):
        with pytest.raises(ntkest.NTKError, match=r"memory=100 bytes do not hold .* give memory='\d") as error:
            ntkest.project(way, 20, memory=100)
        enough = str(error.value).partition("memory='")[2].partition("'")[0]
        np.testing.assert_allclose(ntkest.project(way, 20, memory=enough), ntkest.project(J, 20), atol=1e-12)


GOLDEN = {
    "rademacher": [[-1, 1, 1, -1, 1], [1, 1, -1, -1, 1]],
    "gaussian": [
        [0.70951068, 0.34533769, 0.74040198, -0.35057968, -0.60559988],
        [-2.15565062, -0.37049863, 0.48742413, -1.05574, 0.09113832],
    ],
    "sjlt": [[-3, -17, 47, -58], [-1, 31, -46, -64]],
}
