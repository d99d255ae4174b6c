"""Kernels of streams of batches are those of one batch, in torch and jax."""

from __future__ import annotations

import numpy as np
import pytest

import ntkest
from tests.networks import available

CASES = [name for name in ("torch", "jax") if name in available()]
DRAW = np.random.default_rng(0)
W = [DRAW.standard_normal(shape).astype(np.float32) for shape in ((6, 16), (16, 3))]
X = DRAW.standard_normal((22, 6)).astype(np.float32)
SIZES = (5, 5, 1, 5, 6)


def setting(name):
    """(a function of parameters and inputs, parameters, inputs) of a small network."""
    if name == "torch":
        import torch

        return lambda p, x: torch.tanh(x @ p[0]) @ p[1], [torch.tensor(w) for w in W], torch.tensor(X)
    import jax.numpy as jnp

    return lambda p, x: jnp.tanh(x @ p[0]) @ p[1], [jnp.asarray(w) for w in W], jnp.asarray(X)


def split(x):
    return [x[sum(SIZES[:n]) : sum(SIZES[: n + 1])] for n in range(len(SIZES))]


@pytest.mark.parametrize("keep", [False, True], ids=["streamed", "kept"])
@pytest.mark.parametrize("memory", ["2GB", 40_000])
@pytest.mark.parametrize("name", CASES)
def test_a_stream_has_the_kernel_of_its_examples(name, memory, keep):
    f, params, x = setting(name)
    whole = ntkest.linearize(f, params, x)
    stream = ntkest.linearize_batches(f, params, split(x), keep=keep)
    for outputs in ("full", "sum"):
        expected = np.asarray(ntkest.ntk(whole, outputs=outputs))
        close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(expected).max()}
        np.testing.assert_allclose(ntkest.ntk(stream, outputs=outputs, memory=memory), expected, **close)
        np.testing.assert_allclose(ntkest.ntk(stream, whole, outputs, memory=memory), expected, **close)
        np.testing.assert_allclose(ntkest.ntk(whole, stream, outputs, memory=memory), expected, **close)


@pytest.mark.parametrize("name", CASES)
def test_batches_that_come_in_another_order_are_refused(name):
    f, params, x = setting(name)

    class Shuffled:
        def __init__(self):
            self.reads = 0

        def __iter__(self):
            self.reads += 1
            batches = [x[:11], x[11:]]
            return iter(batches if self.reads <= 2 else batches[::-1])

    stream = ntkest.linearize_batches(f, params, Shuffled())
    with pytest.raises(ntkest.NTKError, match="shuffle=False"):
        ntkest.pntk(stream)


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_reads_the_batches_once_and_linearizes_those_it_needs(name):
    f, params, x = setting(name)
    reads = []

    class Counted:
        def __iter__(self):
            reads.append(0)
            for batch in split(x):
                reads[-1] += 1
                yield batch

    stream = ntkest.linearize_batches(f, params, Counted())
    before = len(reads)
    ntkest.pntk(stream)
    assert reads[before:] == [len(SIZES)]


def test_sequences_of_other_lengths_go_through_the_same_layers():
    torch = pytest.importorskip("torch")
    f = lambda p, x: torch.tanh(x @ p[0]).sum(1) @ p[1]  # noqa: E731
    params = [torch.tensor(w) for w in W]
    x = torch.tensor(DRAW.standard_normal((8, 4, 6)).astype(np.float32))
    short = ntkest.linearize_batches(f, params, [x[:4], x[4:, :2]])
    parts = [ntkest.linearize(f, params, x[:4]), ntkest.linearize(f, params, x[4:, :2])]
    expected = [[ntkest.pntk(a, b) for b in parts] for a in parts]
    expected = torch.cat([torch.cat(row, 1) for row in expected], 0)
    torch.testing.assert_close(ntkest.pntk(short), expected, rtol=1e-5, atol=1e-4)
