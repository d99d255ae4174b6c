"""`from_jacobian` with jax arrays: concrete, and inside transformations."""

import jax
import jax.numpy as jnp
import numpy as np

import ntkest


def squared_norm(A, omega):
    (pulled,) = ntkest.from_jacobian(A).vjp(omega)
    return jnp.sum(pulled * pulled)


def test_a_jacobian_of_jax_arrays_stays_in_jax():
    A = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    J = ntkest.from_jacobian(jnp.asarray(A))
    image = J.jvp((jnp.eye(6, dtype=jnp.float32),))
    assert isinstance(image, jax.Array)
    np.testing.assert_allclose(np.asarray(image), A.T, rtol=1e-6)


def test_a_traced_jacobian_works_in_jit_grad_and_vmap():
    draw = np.random.default_rng(1)
    A = jnp.asarray(draw.standard_normal((3, 4, 6)), dtype=jnp.float32)
    omega = jnp.asarray(draw.standard_normal((2, 4)), dtype=jnp.float32)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(squared_norm), in_axes=(0, None)))(A, omega)
    for a, value, slope in zip(A, values, slopes, strict=True):
        np.testing.assert_allclose(value, np.sum((omega @ a) ** 2), rtol=1e-5)
        np.testing.assert_allclose(slope, 2 * omega.T @ omega @ a, rtol=1e-4, atol=1e-5)  # d‖ωA‖²/dA = 2ωᵀωA


def test_chunks_of_traced_blocks_can_be_stacked():
    A = jnp.arange(12.0).reshape(3, 4)

    def rows(a):
        J = ntkest.from_jacobian({"left": a[:, :1], "right": a[:, 1:]})
        return J.map_vjp(lambda blocks: jnp.concat(blocks, axis=1), jnp.eye(3), chunk=2)

    np.testing.assert_allclose(np.asarray(jax.jit(rows)(A)), np.asarray(A))
