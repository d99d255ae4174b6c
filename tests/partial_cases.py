"""What the tests of partial traces work on: an explicit Jacobian in blocks, and what is true of it."""

import numpy as np

from tests import oracle

SAMPLING = ("forward", "reverse", "hutchinson", "nystrom++")
SHAPE = (3, 4, 2)  # a recurrent net: examples, time steps, units
AXES = ("example", "time", "unit")
M = 24
BLOCKS = {"a.w": 20, "a.b": 4, "b.w": 12}
LAYERS = {"a": ("a.w", "a.b"), "b": ("b.w",)}
PASSES = 60


def jacobian(seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    decay = np.linspace(2, 0.2, M)[:, None]
    return {name: scale * decay * draw.standard_normal((M, n)) for name, n in BLOCKS.items()}


def whole(blocks, names=None):
    return np.concatenate([block for name, block in blocks.items() if names is None or name in names], axis=1)


def traces(K, over, shape=SHAPE):
    """Sums of diagonal entries, one output at a time."""
    found = np.zeros([shape[axis] for axis in over])
    for i, index in enumerate(np.ndindex(*shape)):
        found[tuple(index[axis] for axis in over)] += K[i, i]
    return found


A = jacobian()
K = oracle.kernel(whole(A))
OVER = [(0,), (1,), (2,), (0, 1), (2, 0), (1, 2, 0)]


def dense(blocks=A, modes=("vjp", "jvp")):
    """A linearization that offers some modes only, and counts what is pushed through it."""
    from ntkest.dense import DenseLinearization

    class Counting(DenseLinearization):
        pushed = 0

        def jvp(self, tangents):
            self.pushed += tangents[0].shape[0]
            return super().jvp(tangents)

        def vjp(self, cotangents):
            self.pushed += cotangents.shape[0]
            return super().vjp(cotangents)

    J = Counting(np, blocks, SHAPE)
    J.modes = frozenset(modes)
    J.pushed = 0
    return J
