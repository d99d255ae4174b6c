"""Compact forms of jax functions, against Jacobians that jax writes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntkest
from tests.jax.cases import draw


def dense(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"].T


def recurrent(p, x):
    def step(h, x):
        h = jnp.tanh(h @ p["a"] + x @ p["b"])
        return h, h

    return lax.scan(step, jnp.zeros((x.shape[1], 40)), x)[1]


def heads(p, x):
    return jnp.einsum("nhk,hko->no", jnp.tanh(jnp.einsum("ni,ihk->nhk", x, p["q"])), p["o"])


CASES = {
    "both ways round": (dense, {"w": (30, 40), "b": (40,), "v": (20, 40)}, (3, 30)),
    "on sequences": (dense, {"w": (30, 40), "b": (40,), "v": (20, 40)}, (2, 2, 30)),
    "on a vector": (dense, {"w": (30, 40), "b": (40,), "v": (20, 40)}, (30,)),
    "used twice": (lambda p, x: jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"]), {"w": (30, 30)}, (3, 30)),
    "mapped": (lambda p, x: jax.vmap(lambda x: jnp.tanh(p["w"] @ x))(x), {"w": (40, 30)}, (3, 30)),
    "jitted": (jax.jit(dense), {"w": (30, 40), "b": (40,), "v": (20, 40)}, (3, 30)),
    "remembered": (jax.checkpoint(dense), {"w": (30, 40), "b": (40,), "v": (20, 40)}, (3, 30)),
    "recurrent": (recurrent, {"a": (40, 40), "b": (30, 40)}, (3, 2, 30)),
    "heads": (heads, {"q": (30, 4, 10), "o": (4, 10, 30)}, (3, 30)),
    "with a large table beside": (
        lambda p, x: jnp.sin(x @ p["w"]) + p["t"][jnp.array([0, 2, 0])],
        {"w": (30, 40), "t": (5, 40)},
        (3, 30),
    ),
}
NOT = {
    "tied": (lambda p, x: jnp.sin(jnp.tanh(x @ p["w"]) @ p["w"].T), {"w": (30, 40)}, (3, 30)),
    "many positions": (lambda p, x: x @ p["w"], {"w": (8, 8)}, (20, 8)),
    "convolution": (
        lambda p, x: lax.conv_general_dilated(x, p["w"], (1,), "VALID", dimension_numbers=("NCH", "OIH", "NCH")),
        {"w": (20, 20, 3)},
        (1, 20, 4),
    ),
}


def made(function, shapes, shape):
    params = {name: draw(i, *size, scale=0.2) for i, (name, size) in enumerate(sorted(shapes.items()))}
    return function, params, draw(9, *shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_of_blocks(case):
    with jax.enable_x64(True):
        function, params, x = made(*case)
        J = ntkest.linearize(function, params, x, batch_axis=None)
        small = J.compact
        assert small is not J
        assert 2 * sum(p.size for p in small.params) <= sum(p.size for p in J.params)
        rows = jax.jacrev(function)(params, x)
        wanted = [np.asarray(a).reshape(J.outputs.size, -1) for a in jax.tree.leaves(rows)]
        images = small.vjp(jnp.eye(J.outputs.size))
        for image, row in zip(images, wanted, strict=True):
            K = row @ row.T
            np.testing.assert_allclose(image @ image.T, K, rtol=1e-9, atol=1e-10 * np.max(K))
        whole = sum(row @ row.T for row in wanted)
        np.testing.assert_allclose(small.jvp(images), whole, rtol=1e-9, atol=1e-10 * np.max(whole))


@pytest.mark.parametrize("case", NOT.values(), ids=NOT)
def test_others_are_left_alone(case):
    function, params, x = made(*case)
    J = ntkest.linearize(function, params, x, batch_axis=None)
    assert J.compact is J


def test_reverse_mode_alone():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    function, params, x = made(lambda p, x: sine(x @ p["w"]), {"w": (30, 40)}, (3, 30))
    J = ntkest.linearize(function, params, x, batch_axis=None)
    assert J.compact.modes == J.modes
    assert J.compact.passes_per_jvp == J.passes_per_jvp
    omega = draw(1, 2, J.outputs.size)
    found, wanted = (j.jvp(j.vjp(omega)) for j in (J.compact, J))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_traced_functions_have_none():
    function, params, x = made(*CASES["both ways round"])

    def estimate(params):
        J = ntkest.linearize(function, params, x, check=False)
        assert J.compact is J
        return ntkest.trace(J, method="reverse", passes=8).value

    outside = ntkest.trace(ntkest.linearize(function, params, x, check=False), method="reverse", passes=8)
    assert float(jax.jit(estimate)(params)) == pytest.approx(float(outside), rel=1e-4)


def test_a_second_point_compiles_nothing_new():
    function, params, x = made(*CASES["both ways round"])
    J = ntkest.linearize(function, params, x, batch_axis=None)
    omega = jnp.ones((2, J.outputs.size), J.outputs.dtype)
    first = J.compact.vjp(omega)
    other = J.at({name: 2 * p for name, p in params.items()}).compact
    for mode in ("vjp", "jvp"):
        assert other.passes[mode].derivative.compiled is J.compact.passes[mode].derivative.compiled
    assert float(jnp.max(jnp.abs(first[0] - other.vjp(omega)[0]))) > 0
