"""The table of models that drives the tests of the jax adapter.

A case is built where it is used, so that it takes the precision in force there. It comes with `plain`, the same
function of a flat mapping from the expected names to arrays, written by hand: the oracle for Jacobians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ntkest_jax import backend

from ntkest.linearization import Options


@dataclass
class Built:
    target: Any
    args: tuple
    plain: Callable[[dict], Any]  # {name: array} -> outputs
    point: dict  # {name: array}
    kwargs: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    def linearize(self, **options):
        return linearize(self.target, *self.args, **self.kwargs, **{**self.options, **options})

    def jacobian(self):
        """(M, P_l) for each name, by `jax.jacrev` of the plain function, or `jax.jacfwd` where there is no reverse."""
        try:
            blocks = jax.jit(jax.jacrev(self.plain))(self.point)
        except ValueError:
            blocks = jax.jit(jax.jacfwd(self.plain))(self.point)
        return {n: np.asarray(b).reshape(-1, self.point[n].size) for n, b in blocks.items()}


def linearize(target, *args, output=None, params=None, batch_axis="auto", check=True, copy=False, **kwargs):
    """`ntkest.linearize` by this adapter, whether ntkest is installed or only on the path."""
    options = Options(output, params, batch_axis, check, copy)
    return backend.linearize(target, args, kwargs, options)


def draw(seed, *shape, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape))


def flat(tree, prefix=""):
    """Nested dicts and lists to {dotted name: array}; written here anew, as the oracle of the names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = {}
    for key, value in items:
        name = f"{prefix}{key}"
        found.update(flat(value, f"{name}.") if isinstance(value, dict | list) else {name: value})
    return found


def nested(values, like, prefix=""):
    """The way back from `flat`."""
    items = like.items() if isinstance(like, dict) else enumerate(like)
    parts = {
        k: nested(values, v, f"{prefix}{k}.") if isinstance(v, dict | list) else values[f"{prefix}{k}"]
        for k, v in items
    }
    return parts if isinstance(like, dict) else list(parts.values())


def simple(f, params, *inputs, **options):
    """A case whose parameters are nested dicts and lists of arrays."""
    return Built(f, (params, *inputs), lambda v: f(nested(v, params), *inputs), flat(params), options=options)


def dense(seed, n, m):
    return {"w": draw(seed, n, m, scale=n**-0.5), "b": draw(seed + 1, m, scale=0.1)}


def mlp(activation):
    def f(params, x):
        for layer in params[:-1]:
            x = activation(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return simple(f, [dense(1, 4, 6), dense(3, 6, 5), dense(5, 5, 3)], draw(0, 7, 4))


def convnet():
    def f(params, x):
        x = lax.conv_general_dilated(x, params["c"]["w"], (1, 1), "SAME") + params["c"]["b"]
        x = jnp.tanh(x)
        x = lax.conv_general_dilated(x, params["d"]["w"], (2, 2), "VALID", feature_group_count=2)
        return jax.nn.softplus(x).mean((2, 3)) @ params["head"]

    params = {
        "c": {"b": draw(2, 4, 1, 1), "w": draw(1, 4, 2, 3, 3, scale=0.3)},
        "d": {"w": draw(3, 4, 2, 3, 3, scale=0.3)},
        "head": draw(4, 4, 3),
    }
    return simple(f, params, draw(0, 3, 2, 6, 6))


def gru_step(params, h, x):
    H = h.shape[1]
    a, u = x @ params["wx"] + params["b"], h @ params["wh"]
    z = jax.nn.sigmoid(a[:, :H] + u[:, :H])
    r = jax.nn.sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
    n = jnp.tanh(a[:, 2 * H :] + r * u[:, 2 * H :])
    return (1 - z) * n + z * h


def gru(time_first=False):
    def f(params, x):
        def step(h, xt):
            h = gru_step(params, h, xt)
            return h, h

        x = x if time_first else jnp.swapaxes(x, 0, 1)
        states = lax.scan(step, jnp.zeros((x.shape[1], 3), x.dtype), x)[1]
        return states if time_first else jnp.swapaxes(states, 0, 1)

    params = {"b": draw(3, 9, scale=0.1), "wh": draw(2, 3, 9, scale=0.5), "wx": draw(1, 2, 9)}
    return simple(f, params, draw(0, 4, 5, 2))  # (N, T, 2) or (T, N, 2)


def transformer():
    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def f(params, tokens):
        x = params["embedding"][tokens]
        q, k, v = (norm(x) @ params["attention"][n] for n in "qkv")
        x = x + jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / 2.0) @ v
        x = x + jax.nn.gelu(norm(x) @ params["up"]) @ params["down"]
        return norm(x) @ params["embedding"].T  # the embedding is tied to the head

    params = {
        "attention": {n: draw(i, 4, 4, scale=0.5) for i, n in enumerate("kqv")},
        "down": draw(5, 6, 4),
        "embedding": draw(6, 8, 4),
        "up": draw(7, 4, 6),
    }
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 8, (3, 5)))
    return simple(f, params, tokens)


def checkpointed():
    @jax.checkpoint
    def block(layer, x):
        return jax.nn.silu(x @ layer["w"] + layer["b"])

    def f(params, x):
        for layer in params:
            x = block(layer, x)
        return x

    return simple(f, [dense(1, 4, 4), dense(3, 4, 3)], draw(0, 5, 4))


def mixed_leaves():
    """Integers, keys, strings and functions among the parameters; a Python float is a parameter."""
    w, key = draw(1, 4, 3), jax.random.key(3)
    params = {"act": jnp.tanh, "gain": 0.5, "key": key, "label": "x", "order": np.arange(4)[::-1].copy(), "w": w}

    def f(p, x):
        noise = jax.random.normal(p["key"], (3,), p["w"].dtype)
        return p["act"](x[:, p["order"]] @ p["w"]) * p["gain"] + noise

    def plain(v):
        noise = jax.random.normal(key, (3,), w.dtype)
        return jnp.tanh(draw(0, 5, 4)[:, ::-1] @ v["w"]) * v["gain"] + noise

    return Built(f, (params, draw(0, 5, 4)), plain, {"gain": jnp.asarray(0.5), "w": w})


def unused():
    def f(params, x):
        return jnp.sin(x @ params["w"])

    return simple(f, {"idle": draw(2, 3), "w": draw(1, 4, 2)}, draw(0, 5, 4))


def several_outputs():
    def f(params, x, *, scale):
        h = jnp.tanh(x @ params["w"])
        return {"features": h * scale, "score": h.sum(1)}

    w, x = draw(1, 4, 3), draw(0, 5, 4)

    def plain(v):
        h = jnp.tanh(x @ v["w"])
        return jnp.concatenate([h * 2.0, h.sum(1)[:, None]], 1)

    return Built(f, ({"w": w}, x), plain, {"w": w}, kwargs={"scale": 2.0})


def custom_rules():
    @jax.custom_jvp
    def f_jvp(x):
        return jnp.sin(x)

    f_jvp.defjvp(lambda p, t: (jnp.sin(p[0]), jnp.cos(p[0]) * t[0]))

    @jax.custom_vjp
    def f_vjp(x):
        return jnp.exp(-x)

    f_vjp.defvjp(lambda x: (jnp.exp(-x), x), lambda x, g: (-jnp.exp(-x) * g,))

    def f(params, x):
        return f_vjp(f_jvp(x @ params["w"]))

    return simple(f, {"w": draw(1, 4, 2)}, draw(0, 5, 4))


def while_loop():
    def f(params, x):
        def body(state):
            i, h = state
            return i + 1, jnp.tanh(h @ params["w"])

        return lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]

    return simple(f, {"w": draw(1, 3, 3)}, draw(0, 2, 3))


def jitted_closure():
    """Constants inside a jitted function inside a scan, inside another jitted function."""
    x, shift = np.asarray(draw(0, 5, 3)), draw(2, 3)

    @jax.jit
    def step(h, w):
        return jnp.tanh(h @ w + shift)

    @jax.jit
    def f(params):
        return lax.scan(lambda h, _: (step(h, params["w"]), None), jnp.asarray(x), None, length=2)[0]

    return simple(f, {"w": draw(1, 3, 3)})


def linen():
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(4)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            return nn.Dense(2)(jnp.tanh(x))

    x = draw(0, 5, 3)
    net = Net()
    variables = jax.tree.map(lambda a: a.astype(x.dtype), net.init(jax.random.key(0), x))
    variables["batch_stats"] = jax.tree.map(lambda a: a + 0.5, variables["batch_stats"])
    mean, var = (variables["batch_stats"]["BatchNorm_0"][k] for k in ("mean", "var"))

    def plain(v):
        h = x @ v["Dense_0.kernel"] + v["Dense_0.bias"]
        h = (h - mean) / jnp.sqrt(var + 1e-5) * v["BatchNorm_0.scale"] + v["BatchNorm_0.bias"]
        return jnp.tanh(h) @ v["Dense_1.kernel"] + v["Dense_1.bias"]

    return Built(net, (variables, x), plain, flat(variables["params"]))


def nnx():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
            self.again = self.first  # shared: one parameter
            self.steps = nnx.Variable(jnp.zeros((), int))

        def __call__(self, x):
            self.steps[...] += 1  # state: on a copy only
            return self.again(jnp.tanh(self.drop(self.norm(self.first(x)))))

    net = Net()
    net.eval()
    x = draw(0, 5, 3)
    for kind in (nnx.Param, nnx.BatchStat):  # older versions add BatchNorm's epsilon in the dtype of its buffers
        nnx.update(net, jax.tree.map(lambda a: a.astype(x.dtype), nnx.state(net, kind)))
    # whether the shared layer goes by its first or its second name is up to flax: by the alphabet, "again"
    point = {
        "again.bias": net.first.bias[...],
        "again.kernel": net.first.kernel[...],
        "norm.bias": net.norm.bias[...],
        "norm.scale": net.norm.scale[...],
    }

    def plain(v):
        h = x @ v["again.kernel"] + v["again.bias"]
        h = h / jnp.sqrt(1.0 + 1e-5) * v["norm.scale"] + v["norm.bias"]
        return jnp.tanh(h) @ v["again.kernel"] + v["again.bias"]

    return Built(net, (x,), plain, point)


def equinox(as_pytree):
    import equinox as eqx

    x = draw(0, 5, 3)
    net = eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 4, key=jax.random.key(0)),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Dropout(0.5, inference=True),
            eqx.nn.Linear(4, 2, key=jax.random.key(1)),
        ]
    )
    net = jax.tree.map(lambda a: a.astype(x.dtype) if eqx.is_array(a) else a, net)
    point = {f"layers.{i}.{n}": getattr(net.layers[i], n) for i in (0, 3) for n in ("weight", "bias")}

    def plain(v):
        batch = x if as_pytree else x[:1]
        h = jnp.tanh(batch @ v["layers.0.weight"].T + v["layers.0.bias"])
        out = h @ v["layers.3.weight"].T + v["layers.3.bias"]
        return out if as_pytree else out[0]

    if as_pytree:
        return Built(lambda m, x: jax.vmap(m)(x), (net, x), plain, point)
    return Built(net, (x[0],), plain, point)


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], Built]
    examples: tuple | None
    modes: str = "jvp vjp"
    needs: str = "jax"

    def param(self):
        missing = not find_spec(self.needs)
        return pytest.param(
            self, id=self.name, marks=pytest.mark.skipif(missing, reason=f"{self.needs} is not installed")
        )


TABLE = [
    Case("mlp", lambda: mlp(jnp.tanh), (0, 7)),
    Case("relu", lambda: mlp(jax.nn.relu), (0, 7)),
    Case("convnet", convnet, (0, 3)),
    Case("gru", gru, (0, 4)),
    Case("gru-time-first", lambda: gru(time_first=True), (1, 5)),
    Case("transformer", transformer, (0, 3)),
    Case("checkpoint", checkpointed, (0, 5)),
    Case("mixed-leaves", mixed_leaves, (0, 5)),
    Case("unused", unused, (0, 5)),
    Case("several-outputs", several_outputs, (0, 5)),
    Case("custom-rules", custom_rules, (0, 5)),
    Case("while", while_loop, (0, 2), modes="jvp"),
    Case("jitted-closure", jitted_closure, None),
    Case("linen", linen, (0, 5), needs="flax"),
    Case("nnx", nnx, (0, 5), needs="flax"),
    Case("equinox", lambda: equinox(False), None, needs="equinox"),
    Case("equinox-pytree", lambda: equinox(True), (0, 5), needs="equinox"),
]

CASES = [case.param() for case in TABLE]
BY_NAME = {case.name: case for case in TABLE}


def signs(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).choice([-1.0, 1.0], shape))
