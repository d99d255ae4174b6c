"""Inner products of long rows in one compiled loop, against NumPy in float64."""

import jax
import jax.numpy as jnp
import ntkest_jax.longrows
import numpy as np
import pytest

from ntkest.linearization import row_products

WIDTH = ntkest_jax.longrows.SLICE
SIZES = [3, WIDTH, 2 * WIDTH, 2 * WIDTH + 1, 5 * WIDTH - 7]


def rows(m, n, seed, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((m, n)), dtype)


def double(array):
    return np.asarray(array, np.float64)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("n", SIZES)
def test_products_of_all_rows_with_others_and_with_themselves(n, dtype):
    left, right = rows(5, n, 0, dtype), rows(3, n, 1, dtype)
    for a, b in ((left, right), (left, left)):
        found = row_products(jnp, a, b)
        assert found.dtype == jnp.zeros(0, jnp.float64 if jax.config.jax_enable_x64 else jnp.float32).dtype
        np.testing.assert_allclose(double(found), double(a) @ double(b).T, atol=2e-6 * n, rtol=1e-5)


def test_many_slices_lose_no_digits():
    """Each slice's sum is a whole number that float32 holds; added up one by one they would be off by 7e-6."""
    threes = jnp.full((2, 600 * WIDTH + 5), 3, jnp.float32)
    np.testing.assert_allclose(double(row_products(jnp, threes, threes)), 9.0 * threes.shape[1], rtol=1.2e-7)


def test_derivatives_of_both_modes_are_those_of_a_product():
    left, right = rows(3, 2 * WIDTH + 9, 0), rows(2, 2 * WIDTH + 9, 1)
    weights = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2)), jnp.float32)

    def loss(a, b):
        return jnp.sum(weights * row_products(jnp, a, b)) + jnp.sum(row_products(jnp, a, a) ** 2) / a.shape[1]

    def plain(a, b):
        return jnp.sum(weights * (a @ b.T)) + jnp.sum((a @ a.T) ** 2) / a.shape[1]

    for ours, theirs in zip(jax.grad(loss, (0, 1))(left, right), jax.grad(plain, (0, 1))(left, right), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    change = (rows(3, left.shape[1], 3), rows(2, left.shape[1], 4))
    pushed = [jax.jvp(f, (left, right), change)[1] for f in (loss, plain)]
    np.testing.assert_allclose(*pushed, rtol=1e-3)


def test_batches_of_rows():
    many = jnp.stack([rows(3, 2 * WIDTH, seed) for seed in range(4)])
    found = jax.vmap(lambda a: row_products(jnp, a, a))(many)
    np.testing.assert_allclose(double(found), double(many) @ np.swapaxes(double(many), 1, 2), atol=0.1)


def test_nothing_is_compiled_twice():
    """Calls that are not part of a compiled program are frequent, and each new loop would cost 100 ms."""
    a = rows(4, 2 * WIDTH, 0)
    row_products(jnp, a, a)
    before = ntkest_jax.longrows._compiled._cache_size()
    row_products(jnp, a + 1, a)
    row_products(jnp, a - 1, a)
    row_products(jnp, a, a)
    assert ntkest_jax.longrows._compiled._cache_size() <= before + 1
