"""Exact kernels between examples, against products of an explicit Jacobian."""

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.kernels import contraction
from ntkest.kernels.contraction import products
from ntkest.kernels.groups import group_kernels
from ntkest.tangents import group_parameters

N, O, P = 7, 3, 11  # noqa: E741 - the number of outputs of an example
A = np.random.default_rng(0).standard_normal((N * O, P))
B = np.random.default_rng(1).standard_normal((4 * O, P))
J = ntkest.from_jacobian(A, output_shape=(N, O))
OTHER = ntkest.from_jacobian(B, output_shape=(4, O))
STRICT = ntkest.from_jacobian(array_api_strict.asarray(B), output_shape=(4, O))


def test_the_full_kernel_is_the_product_of_the_jacobians():
    np.testing.assert_allclose(ntkest.ntk(J), A @ A.T, rtol=1e-12)
    np.testing.assert_allclose(ntkest.ntk(J, OTHER), A @ B.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("other", [None, OTHER], ids=["itself", "other"])
def test_reductions_are_those_of_the_blocks(other):
    right, n = (A, N) if other is None else (B, 4)
    blocks = (A @ right.T).reshape(N, O, n, O).transpose(0, 2, 1, 3)
    v = np.array([0.5, -2.0, 1.0])
    wanted = {
        "trace": np.trace(blocks, axis1=2, axis2=3) / O,
        "sum": blocks.sum(axis=(2, 3)),
        1: blocks[:, :, 1, 1],
        -1: blocks[:, :, 2, 2],
    }
    for outputs, kernel in wanted.items():
        np.testing.assert_allclose(ntkest.ntk(J, other, outputs), kernel, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ntkest.ntk(J, other, v), blocks @ v @ v, atol=1e-12)
    np.testing.assert_allclose(ntkest.pntk(J, other), wanted["sum"] / O, rtol=1e-12, atol=1e-12)


def test_blocks_are_those_of_pairs_of_examples():
    blocks = ntkest.kernel_blocks(ntkest.ntk(J, OTHER), O)
    assert blocks.shape == (N, 4, O, O)
    for n, m in ((0, 0), (6, 1), (2, 3)):
        np.testing.assert_allclose(blocks[n, m], A[O * n : O * n + O] @ B[O * m : O * m + O].T, rtol=1e-12)
    whole = ntkest.ntk(J)
    assert np.shares_memory(ntkest.kernel_blocks(whole, O), whole)


@pytest.mark.parametrize(("outputs", "message"), [(4, "has not"), (0, "takes the number"), (True, "takes the number")])
def test_blocks_of_another_size_are_refused(outputs, message):
    with pytest.raises(ntkest.NTKError, match=message):
        ntkest.kernel_blocks(ntkest.ntk(J), outputs)


def test_signs_are_the_trace_kernel_on_average_and_repeat():
    trace = ntkest.ntk(J, outputs="trace")
    many = ntkest.ntk(J, outputs="signs:4000")
    np.testing.assert_allclose(many, trace, atol=0.1 * np.abs(trace).max())
    np.testing.assert_array_equal(ntkest.ntk(J, outputs="signs:2", seed=3), ntkest.ntk(J, outputs="signs:2", seed=3))
    assert not np.allclose(ntkest.ntk(J, outputs="signs:2", seed=3), ntkest.ntk(J, outputs="signs:2", seed=4))


def test_layers_sum_to_the_whole():
    parts = ntkest.from_jacobian({"a.w": A[:, :4], "a.b": A[:, 4:6], "c.w": A[:, 6:]}, output_shape=(N, O))
    for outputs in ("full", "sum", "trace"):
        kernels = ntkest.ntk(parts, outputs=outputs, by="layer")
        assert list(kernels) == ["a", "c"]
        np.testing.assert_allclose(sum(kernels.values()), ntkest.ntk(J, outputs=outputs), rtol=1e-12, atol=1e-12)
    assert list(ntkest.pntk(parts, by="parameter")) == ["a.w", "a.b", "c.w"]


@pytest.mark.parametrize("sizes", [(1, 40, 50), (30, 3, 4), (2, 1, 60)], ids=str)
def test_factors_and_rows_give_the_same_products(sizes):
    """Whichever way is the cheaper one: few positions, many, and a thin layer."""
    positions, p, q = sizes
    draw = np.random.default_rng(2)

    def factors(n):
        return draw.standard_normal((2, n, positions, p)), draw.standard_normal((2, n, positions, q))

    a, b = factors(5), factors(6)
    rows = [np.einsum("knsp,knsq->knpq", *side).reshape(2, -1, p * q) for side in (a, b)]
    wanted = np.einsum("knP,lmP->knlm", *rows)
    for left, right in ((a, b), (rows[0], b), (a, rows[1]), rows):
        np.testing.assert_allclose(products(J.xp, left, right), wanted, rtol=1e-10, atol=1e-9)


def tile_of(kernel):
    """(n·k, n'·k') of (k, n, k', n')."""
    k, n, others, there = kernel.shape
    return np.moveaxis(kernel, (0, 2), (1, 3)).reshape(n * k, there * others)


@pytest.mark.parametrize("cotangents", [(1, 3), (3, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("most", [1, 50, 10**6])
def test_rows_made_piece_by_piece_are_the_same(cotangents, most, monkeypatch):
    """Of a layer with many positions, either of whose factors may be common to all cotangents."""
    monkeypatch.setattr(contraction, "PIECE", most)
    draw = np.random.default_rng(4)

    def factors(n, positions):
        return tuple(draw.standard_normal((k, n, positions, p)) for k, p in zip(cotangents, (3, 4), strict=True))

    a, b = factors(5, 30), factors(6, 20)
    rows = [
        np.einsum("knsp,knsq->knpq", *(np.broadcast_to(s, (3, *s.shape[1:])) for s in side)).reshape(3, -1, 12)
        for side in (a, b)
    ]
    for left, right, first, second in ((a, b, rows[0], rows[1]), (a, a, rows[0], rows[0])):
        wanted = np.einsum("knP,lmP->knlm", first, second)
        (found,) = group_kernels(J, [left], [right], group_parameters(("w",), None), True, 3)
        np.testing.assert_allclose(found, tile_of(wanted), rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(products(J.xp, left, right), wanted, rtol=1e-10, atol=1e-9)


def test_rows_looked_up_count_where_they_are_the_same():
    draw = np.random.default_rng(3)

    def sides(n, positions):
        indices = draw.integers(0, 5, (1, n, positions))
        return indices, draw.standard_normal((2, n, positions, 4))

    a, b = sides(3, 6), sides(4, 2)
    rows = [np.einsum("nsv,knsq->knvq", np.eye(5)[i[0]], side).reshape(2, -1, 20) for i, side in (a, b)]
    for left, right, first, second in ((a, b, rows[0], rows[1]), (a, a, rows[0], rows[0])):
        np.testing.assert_allclose(products(J.xp, left, right), np.einsum("knP,lmP->knlm", first, second), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntkest.ntk(J, outputs="most"), "outputs= takes"),
        (lambda: ntkest.ntk(J, outputs="signs:0"), "outputs= takes"),
        (lambda: ntkest.ntk(J, outputs=True), "outputs= takes"),
        (lambda: ntkest.ntk(J, outputs=None), "outputs= takes"),
        (lambda: ntkest.ntk(J, outputs=3), "none of the 3 outputs"),
        (lambda: ntkest.ntk(J, outputs=[1.0, 2.0]), "2 numbers, but an example has 3"),
        (lambda: ntkest.ntk(J, outputs=[1.0, 2.0, np.nan]), "not finite"),
        (
            lambda: ntkest.ntk(J, ntkest.from_jacobian(array_api_strict.asarray(B), output_shape=(4, O))),
            "different frameworks",
        ),
        (lambda: ntkest.ntk(J, by="row"), "by= takes"),
        (lambda: ntkest.ntk(A), "a linearization is wanted"),
        (lambda: ntkest.ntk(ntkest.from_jacobian(A)), "batch_axis="),
        (lambda: ntkest.ntk(J, ntkest.from_jacobian(A, output_shape=(3, N))), "3 outputs on one side"),
        (lambda: ntkest.ntk(J, ntkest.from_jacobian(B[:, 1:], output_shape=(4, O))), "different parameters"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()


def multiplied_out(block):
    left, right = (np.broadcast_to(side, (3, *side.shape[1:])) for side in block)
    return np.einsum("knsp,knsq->knpq", left, right).reshape(3, left.shape[1], -1)


@pytest.mark.parametrize("leads", [(3, 1), (1, 3), (3, 3)], ids=str)
def test_blocks_are_multiplied_out_by_parts(leads, monkeypatch):
    monkeypatch.setattr(contraction, "PIECE", 200)
    draw = np.random.default_rng(5)
    a, b = (
        tuple(draw.standard_normal((k, n, 40, size)) for k, size in zip(leads, (6, 5), strict=True)) for n in (4, 2)
    )
    rows, others = multiplied_out(a), multiplied_out(b)
    for left, right in ((a, b), (a, others), (rows, b)):
        np.testing.assert_allclose(
            products(np, left, right), np.einsum("knp,lmp->knlm", rows, others), rtol=1e-10, atol=1e-9
        )
    np.testing.assert_allclose(products(np, a, a), np.einsum("knp,lmp->knlm", rows, rows), rtol=1e-10, atol=1e-9)


def test_halves_of_symmetric_products_make_the_whole():
    for count in (5, 191, 192, 500, 1000):
        rows = np.random.default_rng(count).standard_normal((2, count // 2, 3))
        flat = rows.reshape(-1, 3)
        np.testing.assert_allclose(products(np, rows, rows).reshape(len(flat), len(flat)), flat @ flat.T, atol=1e-12)


def test_blocks_that_share_a_factor_count_as_they_do_alone():
    draw = np.random.default_rng(6)
    left, right, ones = draw.standard_normal((3, 4, 1, 5)), draw.standard_normal((1, 4, 1, 7)), np.ones((1, 4, 1, 1))
    blocks = [(left, ones), (left, right), (left.copy(), ones), (ones, left), draw.standard_normal((3, 4, 2))]
    alone = [products(np, block, block) for block in blocks]
    for names in ("abcde", "aabbb"):
        parts = group_parameters([f"{name}.{i}" for i, name in enumerate(names)], "layer")
        for full in (True, False):
            found = group_kernels(J, blocks, blocks, parts, full, 3)
            for part, kernel in enumerate(found):
                own = sum(k for k, name in zip(alone, parts.part_of, strict=True) if name == part)
                wanted = tile_of(own) if full else np.einsum("knkm->nm", own) / 3
                np.testing.assert_allclose(kernel, wanted, rtol=1e-12, atol=1e-12)
