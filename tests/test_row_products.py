"""Inner products of long rows in any namespace, and the way that an adapter may provide for its own."""

import array_api_compat.numpy as xp
import numpy as np
import pytest

from ntkest.linearization import rowproducts
from ntkest.linearization.rowproducts import MOST_SLICES, SLICE, provide_row_products, row_products
from ntkest.tangents import Gram


def rows(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("m", [1, 7, rowproducts.SYMMETRIC_FROM + 3])
@pytest.mark.parametrize("n", [0, 3, SLICE + 1])
def test_products_with_others_and_with_themselves(m, n):
    a, b = rows(m, n), rows(4, n, seed=1)
    np.testing.assert_allclose(row_products(xp, a, b), np.einsum("an,bn->ab", a, b), atol=1e-8)
    np.testing.assert_allclose(row_products(xp, a, a), np.einsum("an,bn->ab", a, a), atol=1e-8)


def test_leading_axes_are_matched():
    a, b = rows(2, 3, 4, 10), rows(2, 3, 5, 10, seed=1)
    np.testing.assert_allclose(row_products(xp, a, b), np.einsum("xyan,xybn->xyab", a, b), atol=1e-12)


def test_single_precision_is_summed_in_double():
    a = rows(3, 3 * SLICE, dtype=np.float32)
    found = row_products(xp, a, a)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, a.astype(float) @ a.astype(float).T, atol=1e-2)


def test_there_are_never_many_slices():
    assert len(rowproducts.slices(10**9)) <= MOST_SLICES
    assert sum(s.stop - s.start for s in rowproducts.slices(10**7 + 3)) == 10**7 + 3


def test_a_way_that_is_provided_makes_all_products_of_its_namespace(monkeypatch):
    seen = []

    def way(left, right):
        seen.append(left is right)
        return left @ right.T

    monkeypatch.setattr(rowproducts, "_ways", {})
    provide_row_products(xp, way)
    blocks = (rows(3, 5), rows(3, 2, seed=1))
    gram = Gram(xp, (0, 0), 1)
    np.testing.assert_allclose(gram(blocks, blocks)[0], sum(b @ b.T for b in blocks))
    gram(blocks, (blocks[0], blocks[1] + 1))
    assert seen == [True, True, True, False]
    gram(tuple(b[None] for b in blocks), tuple(b[None] for b in blocks))
    assert len(seen) == 4
