"""What a user writes, in ten lines or fewer, and numbers that must come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntkest
from tests.jax.cases import draw, gru_step


def exact(J):
    return float(ntkest.trace(J, method="exact"))


def by_hand(f, params):
    """Sum of squares of the Jacobian of f with respect to everything in `params`."""
    return sum(float((np.asarray(block, np.float64) ** 2).sum()) for block in jax.tree.leaves(jax.jacrev(f)(params)))


def test_only_the_lora_parameters_of_a_function():
    base, lora = {"w": draw(2, 3, 3)}, {"lora_a": draw(0, 3, 2), "lora_b": draw(1, 2, 3)}
    x = draw(4, 5, 3)

    def f(p, x):
        return jnp.tanh(x @ p["w"] + x @ p["lora_a"] @ p["lora_b"])

    J = ntkest.linearize(f, {**base, **lora}, x, params="lora_*")
    assert J.param_names == ("lora_a", "lora_b")
    assert exact(J) == pytest.approx(by_hand(lambda p: f({**base, **p}, x), lora), rel=1e-5)


def test_a_linen_module():
    nn = pytest.importorskip("flax.linen")
    net = nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(2)])
    x = draw(0, 5, 3)
    variables = net.init(jax.random.key(0), x)

    J = ntkest.linearize(net, variables, x)
    assert J.examples == (0, 5)
    assert exact(J) == pytest.approx(by_hand(lambda v: net.apply(v, x), variables), rel=1e-5)


def test_an_nnx_module_with_batch_norm_in_eval_mode():
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.tanh)
    net.eval()
    x = draw(0, 5, 3)

    J = ntkest.linearize(net, x)
    assert J.examples == (0, 5)
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    assert exact(J) == pytest.approx(by_hand(lambda p: nnx.merge(graph, p, rest)(x), params), rel=1e-5)


def test_an_equinox_module_over_a_batch():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3, 2, width_size=4, depth=1, activation=jnp.tanh, key=jax.random.key(0))
    x = draw(0, 5, 3)

    J = ntkest.linearize(lambda net, x: jax.vmap(net)(x), net, x)
    assert J.examples == (0, 5)
    arrays, rest = eqx.partition(net, eqx.is_array)
    assert exact(J) == pytest.approx(by_hand(lambda a: jax.vmap(eqx.combine(a, rest))(x), arrays), rel=1e-5)


def test_a_model_on_integer_tokens_and_integer_labels():
    params = {"embedding": draw(0, 11, 4), "head": draw(1, 4, 3)}
    tokens, labels = jnp.asarray([[1, 5, 5], [0, 10, 2], [7, 7, 3], [4, 9, 8]]), jnp.asarray([0, 2, 1, 1])

    def classify(p, tokens):
        return jnp.tanh(p["embedding"][tokens].mean(1)) @ p["head"]

    J = ntkest.linearize(classify, params, tokens)
    assert exact(J) == pytest.approx(by_hand(lambda p: classify(p, tokens), params), rel=1e-5)
    onehot = jax.nn.one_hot(labels, 3) - 1 / 3
    found, wanted = (ntkest.alignment(J, y, method="exact") for y in (labels, onehot))
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)


def test_checkpoints_of_a_training_run_without_linearizing_anew():
    params, x, y = {"a": draw(0, 3, 8), "b": 0.3 * draw(1, 8, 2)}, draw(2, 6, 3), draw(3, 6, 2)

    def f(p, x):
        return jnp.tanh(x @ p["a"]) @ p["b"]

    J = ntkest.linearize(f, params, x)
    for _ in range(4):
        grads = jax.grad(lambda p: ((f(p, x) - y) ** 2).mean())(params)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)
        tracked, fresh = J.at(params), ntkest.linearize(f, params, x)
        for quantity in (ntkest.trace, ntkest.effective_rank):
            assert float(quantity(tracked, passes=8)) == float(quantity(fresh, passes=8))
        moved = ntkest.alignment(tracked, J, passes=16)
        assert float(moved) == float(ntkest.alignment(fresh, J, passes=16))
        assert 0 < float(moved) < 1


def test_a_gru_with_a_tuple_of_outputs_and_a_mask_on_padded_steps():
    params = {"b": draw(3, 9, scale=0.1), "wh": draw(2, 3, 9, scale=0.5), "wx": draw(1, 2, 9)}
    x, lengths = draw(0, 4, 5, 2), np.asarray([5, 3, 1, 4])
    mask = np.arange(5) < lengths[:, None]

    def gru(p, x):  # (states (N, T, H), the last one (N, H))
        last, states = lax.scan(lambda h, xt: (gru_step(p, h, xt),) * 2, jnp.zeros((4, 3)), jnp.swapaxes(x, 0, 1))
        return jnp.swapaxes(states, 0, 1), last

    J = ntkest.linearize(gru, params, x, output=lambda o: o[0] * mask[:, :, None])
    rows = jax.jacrev(lambda p: gru(p, x)[0][mask])(params)  # only steps that there are
    assert exact(J) == pytest.approx(sum(float((r * r).sum()) for r in rows.values()), rel=1e-5)
