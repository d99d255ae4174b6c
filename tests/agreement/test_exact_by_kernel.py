"""Exact traces, norms and alignments from the kernel between examples, where layers give factors."""

from __future__ import annotations

import numpy as np
import pytest

import ntkest
from tests.networks import available

CASES = [name for name in ("torch", "jax") if name in available()]
DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((9, 20)).astype(np.float32)
FIRST, SECOND = (
    [DRAW.standard_normal(shape).astype(np.float32) / 4 for shape in ((20, 30), (30, 4))] for _ in range(2)
)


def linearized(name, weights):
    names = ("hidden.weight", "head.weight")
    if name == "torch":
        import torch

        params = {key: torch.tensor(w) for key, w in zip(names, weights, strict=True)}
        return ntkest.linearize(lambda p, x: torch.tanh(x @ p[names[0]]) @ p[names[1]], params, torch.tensor(X))
    import jax.numpy as jnp

    params = {key: jnp.asarray(w) for key, w in zip(names, weights, strict=True)}
    return ntkest.linearize(lambda p, x: jnp.tanh(x @ p[names[0]]) @ p[names[1]], params, jnp.asarray(X))


def layers(weights):
    """K of each layer by hand: blocks W1 and W2 of tanh(x W1) W2."""
    first, second = (w.astype(np.float64) for w in weights)
    hidden = np.tanh(X @ first)
    slopes = 1 - hidden**2
    behind = slopes[:, :, None] * second[None]  # (N, 30, O): d output / d preactivation
    across = np.einsum("nho,mhp->nomp", behind, behind)
    one = np.einsum("nm,nomp->nomp", X @ X.T, across).reshape(36, 36)
    return {"hidden": one, "head": np.kron(hidden @ hidden.T, np.eye(4))}


@pytest.mark.parametrize("memory", ["2GB", 16_000])
@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_the_kernel_for_a_pass_an_output(name, memory):
    J, other = linearized(name, FIRST), linearized(name, SECOND)
    parts = layers(FIRST)
    whole, second = sum(parts.values()), sum(layers(SECOND).values())
    trace = ntkest.trace(J, method="exact", memory=memory)
    assert trace.passes == 4
    norm = ntkest.frobenius_norm(J, method="exact", by="layer", memory=memory)
    assert (norm.passes == 4) == (memory == "2GB")
    assert norm.passes < 36
    rank = ntkest.effective_rank(J, method="exact", memory=memory)
    alignment = ntkest.alignment(J, other, method="exact", memory=memory)
    product = np.sum(whole * second) / np.linalg.norm(whole) / np.linalg.norm(second)
    for found, wanted in (
        (trace, np.trace(whole)),
        (norm, np.linalg.norm(whole)),
        (rank, np.trace(whole) ** 2 / np.sum(whole**2)),
        (alignment, product),
        *((norm.parts[layer], np.linalg.norm(part)) for layer, part in parts.items()),
    ):
        assert found.method == "exact"
        assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_centred_kernels_still_go_by_rows(name):
    J, centre = linearized(name, FIRST), np.eye(36) - np.ones((36, 36)) / 36
    whole = centre @ sum(layers(FIRST).values()) @ centre
    found = ntkest.frobenius_norm(J, method="exact", centered=True)
    assert found.passes == 36
    assert float(found) == pytest.approx(np.linalg.norm(whole), rel=1e-5)
