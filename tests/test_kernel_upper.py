"""Full kernels of a set of examples with itself, in strips of cotangents, against explicit rows of the Jacobian."""

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.kernels import upper
from ntkest.kernels.groups import group_kernels
from ntkest.tangents import group_parameters

J = ntkest.from_jacobian(np.ones((2, 2)), output_shape=(2, 1))


def blocks_of(k, n, draw):
    """Gradients of each form, and the rows (k, n, P) that they stand for."""

    def normal(*shape):
        return draw.standard_normal(shape)

    b, a, ones = normal(k, n, 1, 5), normal(1, n, 1, 4), np.ones((1, n, 1, 1))
    behind, patches = normal(k, n, 30, 3), normal(1, n, 30, 4)
    words, ids = normal(k, n, 2, 5), draw.integers(0, 6, (1, n, 2))
    both, own = normal(k, n, 2, 5), normal(k, n, 2, 7)
    few, along = normal(1, n, 1, 9), normal(k, n, 1, 3)
    found = {
        "dense.weight": ((b, a), np.einsum("knsp,nsq->knpq", b, a[0])),
        "dense.bias": ((b, ones), b[:, :, 0]),
        "plain.rows": (normal(k, n, 6), None),
        "patches.weight": ((behind, patches), np.einsum("knsp,nsq->knpq", behind, patches[0])),
        "words.table": ((ids, words), np.einsum("nsv,knsq->knvq", np.eye(6)[ids[0]], words)),
        "both.weight": ((both, own), np.einsum("knsp,knsq->knpq", both, own)),
        "flipped.weight": ((few, along), np.einsum("nsp,knsq->knpq", few[0], along)),
    }
    return {name: (block, (block if rows is None else rows).reshape(k, n, -1)) for name, (block, rows) in found.items()}


def kernel_of(rows):
    """(n·k, n·k), k fastest."""
    flat = np.concatenate(rows, axis=2).swapaxes(0, 1).reshape(rows[0].shape[1] * rows[0].shape[0], -1)
    return flat @ flat.T


@pytest.mark.parametrize(("k", "n"), [(4, 40), (7, 33), (23, 30), (3, 50), (130, 1), (12, 10)], ids=str)
@pytest.mark.parametrize("by", [None, "layer"])
def test_strips_make_the_whole(k, n, by):
    found = blocks_of(k, n, np.random.default_rng(k))
    groups = group_parameters(tuple(found), by)
    blocks = [block for block, _ in found.values()]
    kernels = group_kernels(J, blocks, blocks, groups, True, k)
    for part, kernel in enumerate(kernels):
        rows = [rows for (_, rows), own in zip(found.values(), groups.part_of, strict=True) if own == part]
        np.testing.assert_allclose(kernel, kernel_of(rows), rtol=1e-11, atol=1e-11)


def test_little_memory_gives_the_same():
    found = blocks_of(6, 44, np.random.default_rng(0))
    blocks = [block for block, _ in found.values()]
    wanted = kernel_of([rows for _, rows in found.values()])
    for most in (10**4, 10**5, 2 * 10**5, 10**6):  # all by halves of the examples; some; none
        (kernel,) = group_kernels(J, blocks, blocks, group_parameters(tuple(found), None), True, 6, most)
        np.testing.assert_allclose(kernel, wanted, rtol=1e-11, atol=1e-11)


def test_two_sets_of_examples_have_no_upper_half():
    found, other = (blocks_of(5, 40, np.random.default_rng(seed)) for seed in (0, 1))
    left, right = ([block for block, _ in side.values()] for side in (found, other))
    rows, others = (
        np.concatenate([r for _, r in side.values()], axis=2).swapaxes(0, 1).reshape(200, -1) for side in (found, other)
    )
    (kernel,) = group_kernels(J, left, right, group_parameters(tuple(found), None), True, 5)
    np.testing.assert_allclose(kernel, rows @ others.T, rtol=1e-11, atol=1e-11)


def test_strips_are_few_and_cover_all_cotangents():
    for k in range(1, 60):
        for n in (1, 5, 100, 4000):
            spans = upper.spans_of(np, k, n)
            assert [i for span in spans for i in range(*span)] == (list(range(k)) if spans else [])
            assert len(spans) in {0, *range(upper.FEWEST, upper.MOST + 1)}
            assert all((j - i) * n >= upper.TILE // 2 for i, j in spans)
    assert upper.spans_of(np, 10, 256) == tuple((i, i + 1) for i in range(10))


def test_only_operations_of_the_standard():
    rows = np.random.default_rng(2).standard_normal((200, 9))
    K = ntkest.ntk(ntkest.from_jacobian(array_api_strict.asarray(rows), output_shape=(40, 5)))
    np.testing.assert_allclose(np.asarray(K), rows @ rows.T, rtol=1e-11, atol=1e-11)
