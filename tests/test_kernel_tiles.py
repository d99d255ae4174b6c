"""Kernels in tiles: the same numbers for every tile, stripe and way of reading the data."""

from __future__ import annotations

import numpy as np
import pytest

import ntkest
from ntkest.kernels.bounded import bounded
from ntkest.kernels.contraction import products
from ntkest.kernels.groups import group_kernels
from ntkest.kernels.images import Images
from ntkest.kernels.tiles import Cost, Plan, planned
from ntkest.tangents import group_parameters
from tests.networks import linearized, network

N, O, P = 13, 3, 40  # noqa: E741 - the number of outputs of an example
A = np.random.default_rng(0).standard_normal((N * O, P))
B = np.random.default_rng(1).standard_normal((5 * O, P))
J = ntkest.from_jacobian({"a.w": A[:, :25], "a.b": A[:, 25:30], "c": A[:, 30:]}, output_shape=(N, O))
OTHER = ntkest.from_jacobian({"a.w": B[:, :25], "a.b": B[:, 25:30], "c": B[:, 30:]}, output_shape=(5, O))
OUTPUTS = ["full", "trace", "sum", "pntk", 1, "signs:2"]


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("other", [None, OTHER], ids=["itself", "other"])
@pytest.mark.parametrize("memory", [20_000, 50_000, 200_000])
def test_tiles_of_every_size_give_the_same_kernel(memory, other, outputs):
    whole = ntkest.ntk(J, other, outputs)
    tiles = []
    found = ntkest.ntk(J, other, outputs, memory=memory, progress=lambda done, total: tiles.append((done, total)))
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)
    assert tiles == [(n + 1, tiles[-1][1]) for n in range(len(tiles))]
    if memory == 20_000:
        assert len(tiles) > 2


def test_layers_in_tiles_sum_to_the_whole():
    parts = ntkest.ntk(J, by="layer", memory=40_000)
    assert list(parts) == ["a", "c"]
    np.testing.assert_allclose(sum(parts.values()), A @ A.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts["c"], A[:, 30:] @ A[:, 30:].T, rtol=1e-12, atol=1e-12)


def test_memory_decides_tiles_and_stripes():
    cost = Cost(example=8 * P, entry=8, item=8, kernels=1)
    small, large = (planned((N, N), True, cost, memory, False) for memory in (10_000, 10**9))
    assert large.tile == N
    assert len(large.stripes()) == 1
    assert small.tile < N
    assert small.most < large.most
    rows = len(small.ranges(0))
    assert len(small.places()) == rows * (rows + 1) // 2
    for plan in (small, large):
        assert [i for stripe in plan.stripes() for i in stripe] == list(range(len(plan.ranges(0))))


def test_too_little_memory_says_how_much_is_needed():
    with pytest.raises(ntkest.NTKError, match=r"memory=100 bytes do not hold .* give memory='\d") as error:
        ntkest.ntk(J, memory=100)
    enough = str(error.value).partition("memory='")[2].partition("'")[0]
    np.testing.assert_allclose(ntkest.ntk(J, memory=enough), A @ A.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory", ["a lot", 0, -1, None])
def test_memory_is_a_size(memory):
    with pytest.raises(ntkest.NTKError, match="memory= takes"):
        ntkest.ntk(J, memory=memory)


@pytest.mark.parametrize("most", [1, 40, 700, 10**6])
@pytest.mark.parametrize("kind", ["rows", "factors", "looked up"])
def test_bounded_products_are_products(kind, most):
    draw = np.random.default_rng(2)

    def block(n):
        right = draw.standard_normal((2, n, 4, 3))
        if kind == "looked up":
            return draw.integers(0, 5, (1, n, 4)), right
        left = draw.standard_normal((2, n, 4, 6))
        return (left, right) if kind == "factors" else np.einsum("knsp,knsq->knpq", left, right).reshape(2, n, 18)

    a, b = block(7), block(5)
    for left, right in ((a, b), (b, a), (a, a)):
        for multiply, expected in (
            (lambda a, b: products(J.xp, a, b), products(J.xp, left, right)),
            (lambda a, b: products(J.xp, a, b)[1, :, 0, :], products(J.xp, left, right)[1, :, 0, :]),
        ):
            if left is right and expected.ndim == 2:
                continue  # not symmetric
            found = bounded(J.xp, multiply, left, right, most)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
        own = group_kernels(J, [left], [right], group_parameters(["w"], None), False, 2, most)[0]
        whole = group_kernels(J, [left], [right], group_parameters(["w"], None), False, 2)[0]
        np.testing.assert_allclose(own, whole, rtol=1e-10, atol=1e-10)


class Touchy:
    """A linearization whose gradients of some examples are not finite."""

    def __init__(self, inner, broken):
        self.inner, self.broken = inner, broken

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def uses(self, cotangents, start, stop):
        blocks = [block.copy() for block in self.inner.uses(cotangents, start, stop)]
        for n in self.broken:
            if start <= n < stop:
                blocks[0][:, n - start, 0] = np.nan
        return tuple(blocks)


@pytest.mark.parametrize("memory", ["2GB", 20_000])
def test_examples_with_gradients_that_are_not_finite_are_named(memory):
    with pytest.raises(ntkest.NTKError, match=r"examples 4(, 11)? are NaN or infinite"):
        ntkest.ntk(Touchy(J, [4, 11]), memory=memory)
    with pytest.raises(ntkest.NTKError, match="gradients of examples 2 are NaN or infinite"):
        ntkest.ntk(OTHER, Touchy(J, [2]), "sum", memory=memory)


def test_products_that_overflow_are_told_from_gradients_that_are_infinite():
    big = ntkest.from_jacobian(np.full((4, 3), 1e25, dtype=np.float32), output_shape=(2, 2))
    with np.errstate(over="ignore"), pytest.raises(ntkest.NTKError, match="0 … 1 overflow float32"):
        ntkest.ntk(big)


def test_entries_may_be_so_large_that_their_sum_overflows():
    rows = np.full((4, 3), 5e18, dtype=np.float32)
    K = ntkest.ntk(ntkest.from_jacobian(rows, output_shape=(2, 2)))
    np.testing.assert_allclose(K, np.full((4, 4), 7.5e37), rtol=1e-6)


def test_a_plan_goes_through_every_tile_once():
    for symmetric in (True, False):
        plan = Plan((10, 10), symmetric, 3, 100, 2)
        seen = [(i, j) for rows in plan.stripes() for j in plan.columns(rows) for i in rows if i <= j or not symmetric]
        assert sorted(seen) == sorted(plan.places())
        assert len(set(seen)) == len(seen) == (10 if symmetric else 16)


def test_the_gradients_of_the_first_example_are_measured_once(backend):
    """They say how many fit into a tile, and they are as dear as a small kernel."""
    J = linearized(network((4, 30, 3), N=6), backend)
    images, more = Images(J, np.eye(3)), Images(J, np.ones((1, 3)))
    found, asked = images.example_bytes(), []
    again = Images(J, np.eye(3))
    again.sweep = lambda ranges: asked.append(ranges)
    assert again.example_bytes() == found
    assert not asked
    assert more.example_bytes() < found
