"""The QR over parameter blocks in jax: under jit, vmap and grad, with and without a basis to grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkest.tallskinny import extend_basis, orthonormalise, separate


def draw(m, sizes=(3000, 7, 900), seed=0):
    generator = np.random.default_rng(seed)
    return tuple(jnp.asarray(generator.standard_normal((m, n)), dtype=jnp.float32) for n in sizes)


def test_traced_factors_equal_concrete_ones():
    old, _ = orthonormalise(jnp, draw(4))
    blocks = draw(6, seed=1)
    concrete = extend_basis(jnp, old, blocks)
    traced = jax.jit(lambda old, blocks: extend_basis(jnp, old, blocks))(old, blocks)
    for ours, wanted in zip((*traced[0], traced[2]), (*concrete[0], concrete[2]), strict=True):
        np.testing.assert_allclose(np.abs(ours), np.abs(wanted), atol=2e-4)
    np.testing.assert_allclose(traced[1], concrete[1], atol=2e-4)


def test_a_batch_of_matrices_is_factored_under_vmap():
    several = tuple(jnp.stack([b, 2 * b]) for b in draw(5))
    q, r = jax.vmap(lambda *blocks: orthonormalise(jnp, blocks))(*several)
    np.testing.assert_allclose(r[1], 2 * r[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sum(b[1] @ b[1].T for b in q), np.eye(5), atol=2e-6)


@pytest.mark.usefixtures("float64")
def test_the_gradient_is_that_of_finite_differences():
    blocks = tuple(b.astype(jnp.float64) for b in draw(4, (60, 8)))
    blocks = (blocks[0].at[3].set(blocks[0][2]), blocks[1].at[3].set(blocks[1][2]))  # dependent
    v = np.random.default_rng(5).standard_normal((3, 68))
    towards = jnp.asarray(v[0]) @ jnp.concat(blocks, axis=1).T @ jnp.concat(blocks, axis=1) + 0 * jnp.asarray(v[1])

    def held(t):
        moved = tuple(
            b * (1 + t * d) for b, d in zip(blocks, (jnp.asarray(v[1, :60]), jnp.asarray(v[2, :8])), strict=True)
        )
        q, _ = orthonormalise(jnp, separate(jnp, moved))
        return jnp.sum((jnp.concat(q, axis=1) @ towards) ** 2)

    slope = jax.jit(jax.grad(held))(0.1)
    step = 1e-5
    assert float(slope) == pytest.approx(float(held(0.1 + step) - held(0.1 - step)) / (2 * step), rel=1e-4)
