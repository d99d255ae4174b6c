"""The table of layers and networks whose exact kernels are tested in jax: a function, its parameters, its inputs.

All are made where they are used, so that they take the precision in force there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.jax.cases import draw, gru_step


def tokens(*shape, below):
    return jnp.asarray(np.random.default_rng(3).integers(0, below, shape))


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def conv(spec, x, w, *, summed=True, **options):
    """A convolution whose outputs are few."""

    def f(p, x):
        rank = x.ndim - 2
        options.setdefault("window_strides", (1,) * rank)
        options.setdefault("padding", "VALID")
        y = jnp.tanh(lax.conv_general_dilated(x, p["w"], dimension_numbers=spec, **options) + 0.1)
        space = tuple(axis for axis in range(1, rank + 2) if axis != spec[2].index("C"))
        return (y * jnp.cos(jnp.arange(y.size // len(y))).reshape(1, *y.shape[1:])).sum(space)[:, :3]

    return f, {"w": draw(1, *w, scale=0.3)}, draw(2, *x)


FLAT, IMAGE, LAST = ("NCH", "OIH", "NCH"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC")
VOLUME = ("NDHWC", "DHWIO", "NDHWC")


def transposed_convolution(kernel):
    def f(p, x):
        return jnp.tanh(lax.conv_transpose(x, p["w"], (2, 2), "SAME", transpose_kernel=kernel)).sum((1, 2))

    return f, {"w": draw(1, 3, 3, 4, 4, scale=0.3)}, draw(2, 3, 3, 3, 4)


def dense(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"].T


def custom(p, x):
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    return jnp.sin(product(jax.nn.silu(x), p["w"]))


def resnet(p, x):
    def block(x, w, v):
        inner = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAST)
        inner = lax.conv_general_dilated(jax.nn.softplus(inner), v, (1, 1), "SAME", dimension_numbers=LAST)
        return jax.nn.softplus(x + inner)

    x = lax.conv_general_dilated(x, p["stem"], (2, 2), "SAME", dimension_numbers=LAST)
    x = block(norm(x) * p["scale"] + p["shift"], p["a"], p["b"])
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ p["head"]


def transformer(p, ids):
    x = p["embedding"][ids] + p["places"]
    y = norm(x) * p["gain"] + p["offset"]
    q, k, v = (jnp.einsum("nsd,dhe->nhse", y, p[name]) for name in "qkv")
    x = x + jnp.einsum("nhse,hed->nsd", jax.nn.softmax(q @ jnp.swapaxes(k, 2, 3)) @ v, p["o"])
    x = x + jax.nn.gelu(norm(x) @ p["up"] + p["bias"]) @ p["down"]
    return norm(x.mean(1)) @ p["head"]


def gru(p, x):
    def step(h, given):
        h = gru_step(p, h, given)
        return h, None

    return lax.scan(step, jnp.zeros((len(x), p["wh"].shape[0]), x.dtype), jnp.swapaxes(x, 0, 1))[0]


def nested_scans(p, x):
    def outer(h, given):
        h = lax.scan(lambda h, _: (jnp.tanh(h @ p["w"] + given @ p["u"]), None), h, None, length=2)[0]
        return h, None

    return lax.scan(outer, jnp.zeros((len(x), 12), x.dtype), jnp.swapaxes(x, 0, 1))[0][:, :3]


def wide(*names, n=12, m=14):
    """Weights for which factors are smaller than rows."""
    return {name: draw(i, n, m, scale=0.3) for i, name in enumerate(names)}


CASES = {
    # a function, its parameters, its inputs; and the parameters that come in factors
    "dense": lambda: ((dense, {**wide("w"), "b": draw(5, 14), "v": draw(6, 9, 14)}, draw(9, 4, 12)), "bvw"),
    "positions": lambda: ((lambda p, x: dense(p, x).mean(1), {**wide("w"), "b": draw(5, 14), "v": draw(6, 9, 14)},
                           draw(9, 4, 3, 12)), "bvw"),
    "heads": lambda: ((lambda p, x: jnp.sin(jnp.einsum("nsd,dhe->nshe", x, p["w"])).sum((1, 3)),
                       {"w": draw(1, 12, 2, 7, scale=0.3)}, draw(2, 3, 4, 12)), "w"),
    "a batch of weights": lambda: ((lambda p, x: jnp.sin(jnp.einsum("nhd,hde->nhe", x, p["w"])).sum(2),
                                    {"w": draw(1, 2, 6, 5, scale=0.3)}, draw(2, 3, 2, 6)), ""),
    "scaled": lambda: ((lambda p, x: jnp.sin(x @ (0.5 * p["w"]) / 3.0 - x @ -p["w"]), wide("w"), draw(2, 4, 12)), "w"),
    "flat": lambda: ((lambda p, x: jnp.sin(x @ p["w"].reshape(12, 14)), {"w": draw(1, 168, scale=0.3)},
                      draw(2, 4, 12)), "w"),
    "calls": lambda: ((lambda p, x: jax.jit(dense)(p, jnp.tanh(x)), {**wide("w"), "b": draw(5, 14),
                       "v": draw(6, 9, 14)}, draw(9, 4, 12)), "bvw"),
    "custom rules": lambda: ((custom, wide("w"), draw(2, 4, 12)), "w"),
    "checkpoint": lambda: ((jax.checkpoint(dense), {**wide("w"), "b": draw(5, 14), "v": draw(6, 9, 14)},
                            draw(9, 4, 12)), "bvw"),
    "mapped": lambda: ((lambda p, x: jax.vmap(lambda row: dense(p, row))(x), {**wide("w"), "b": draw(5, 14),
                        "v": draw(6, 9, 14)}, draw(9, 4, 12)), "bvw"),
    "tied": lambda: ((lambda p, x: jnp.sin(jnp.tanh(x @ p["w"]) @ p["w"].T), wide("w"), draw(2, 4, 12)), "w"),
    "mixed": lambda: ((lambda p, x: x @ p["w"] * jnp.sum(p["w"] ** 2), wide("w"), draw(2, 4, 12)), ""),
    "affine": lambda: ((lambda p, x: jnp.sin(norm(x) * p["g"] + p["b"]), {"g": draw(1, 6), "b": draw(2, 6)},
                        draw(3, 4, 6)), ""),
    "embedding": lambda: ((lambda p, i: jnp.tanh(p["e"][i]).sum(1) @ p["w"], {"e": draw(1, 6, 5), "w": draw(2, 5, 3)},
                           tokens(4, 5, below=6)), "ew"),
    "take": lambda: ((lambda p, i: jnp.tanh(jnp.take(p["e"], i, axis=0, mode="clip")).sum(1), {"e": draw(1, 6, 5)},
                      tokens(4, 5, below=9)), "e"),
    "drop": lambda: ((lambda p, i: jnp.tanh(p["e"].at[i].get(mode="fill", fill_value=0.5)).sum(1), {"e": draw(1, 6, 5)},
                      tokens(4, 5, below=9)), "e"),
    "tied to the head": lambda: ((lambda p, i: jnp.tanh(p["e"][i]).mean(1) @ p["e"].T, {"e": draw(1, 6, 5)},
                                  tokens(4, 3, below=6)), ""),
    "1d": lambda: (conv(FLAT, (3, 6, 7), (20, 6, 3), window_strides=(2,)), "w"),
    "2d": lambda: (conv(IMAGE, (3, 5, 4, 4), (20, 5, 3, 3)), "w"),
    "2d, many positions": lambda: (conv(IMAGE, (3, 2, 6, 5), (3, 2, 3, 2), padding="SAME"), ""),
    "2d, strides, padding and holes": lambda: (conv(LAST, (3, 7, 6, 4), (2, 3, 4, 30), window_strides=(4, 3),
                                                    padding=((1, 2), (0, 3)), rhs_dilation=(2, 1)), "w"),
    "2d, another order": lambda: (conv(("NHWC", "HIWO", "NHWC"), (3, 4, 4, 5), (3, 5, 3, 16)), "w"),
    "2d, groups": lambda: (conv(IMAGE, (3, 4, 5, 4), (6, 2, 3, 3), feature_group_count=2), ""),
    "2d, each channel alone": lambda: (conv(LAST, (3, 5, 4, 4), (3, 3, 1, 8), feature_group_count=4), ""),
    "3d": lambda: (conv(VOLUME, (3, 3, 3, 4, 4), (2, 3, 2, 4, 12), window_strides=(1, 1, 2)), "w"),
    "2d, input dilated": lambda: (conv(IMAGE, (3, 4, 3, 3), (6, 4, 3, 3), lhs_dilation=(2, 2),
                                      padding=((1, 1), (1, 2))), "w"),
    "transposed": lambda: (transposed_convolution(False), ""),
    "transposed, turned": lambda: (transposed_convolution(True), ""),
    "resnet": lambda: ((resnet, {"stem": draw(1, 3, 3, 2, 4, scale=0.3), "scale": draw(2, 4), "shift": draw(3, 4),
                        "a": draw(4, 3, 3, 4, 4, scale=0.2), "b": draw(5, 3, 3, 4, 4, scale=0.2),
                        "head": draw(6, 4, 3)}, draw(7, 3, 8, 8, 2)), None),
    "transformer": lambda: ((transformer, {"embedding": draw(1, 9, 8), "places": draw(2, 3, 8), "gain": draw(3, 8),
                             "offset": draw(4, 8), **{n: draw(5 + i, 8, 2, 4, scale=0.4) for i, n in enumerate("qkv")},
                             "o": draw(8, 2, 4, 8, scale=0.4), "up": draw(9, 8, 16, scale=0.3), "bias": draw(10, 16),
                             "down": draw(11, 16, 8, scale=0.3), "head": draw(12, 8, 3)}, tokens(3, 3, below=9)), None),
    "gru": lambda: ((gru, {"wx": draw(1, 20, 36, scale=0.2), "wh": draw(2, 12, 36, scale=0.3), "b": draw(3, 36)},
                     draw(4, 3, 4, 20)), "hx"),
    "nested scans": lambda: ((nested_scans, {"w": draw(1, 12, 12, scale=0.3), "u": draw(2, 13, 12, scale=0.3)},
                              draw(3, 3, 2, 13)), "uw"),
}  # fmt: skip
