"""Products with a matrix are counted in compiled programs as they are made."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.peers_jax import count_products

N, P, SAMPLES = 7, 5, 3


def batched(K, V):
    return jax.vmap(lambda v: K @ v, 1, 1)(V)


def then_on_the_basis(K, V):
    return batched(K, jnp.linalg.qr(batched(K, V))[0])


def in_one_branch(K, V):
    return jax.lax.cond(jnp.sum(V) > 0, lambda: V, lambda: batched(K, V))


def in_a_loop(K, V):
    return jax.lax.scan(lambda v, _: (K @ v, None), V[:, 0], length=4)[0]


def transposed(K, V):
    pull = jax.linear_transpose(lambda v: K @ v, V[:, 0])
    return jax.vmap(pull, 1, 1)(V)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (batched, SAMPLES),
        (then_on_the_basis, 2 * SAMPLES),
        (in_one_branch, SAMPLES),
        (in_a_loop, 4),
        (transposed, SAMPLES),
        (jax.jit(batched), SAMPLES),
        (lambda K, V: V.T @ V, 0),
    ],
)
def test_products_with_a_square_matrix_are_counted(function, products):
    program = jax.make_jaxpr(function)(jnp.ones((N, N)), jnp.ones((N, SAMPLES)))
    assert count_products(program.jaxpr, (N, N)) == products


def test_products_with_either_side_of_a_matrix_are_counted():
    def both(J, U):
        return jax.vmap(lambda u: J @ (u @ J), 1, 1)(U)

    program = jax.make_jaxpr(both)(jnp.ones((N, P)), jnp.ones((N, SAMPLES)))
    assert count_products(program.jaxpr, (N, P)) == 2 * SAMPLES


def test_a_loop_of_unknown_length_is_refused():
    def loop(K, v):
        return jax.lax.while_loop(lambda v: jnp.sum(v) < 100, lambda v: K @ v, v)

    program = jax.make_jaxpr(loop)(jnp.ones((N, N)), jnp.ones(N))
    with pytest.raises(NotImplementedError, match="unknown length"):
        count_products(program.jaxpr, (N, N))
