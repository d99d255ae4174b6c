"""The QR over parameter blocks against NumPy's of one flat matrix."""

import array_api_strict
import numpy as np
import pytest

from ntkest import tallskinny
from ntkest.tallskinny import extend_basis, orthonormalise, separate

SIZES = {
    "one": (50,),
    "uneven": (300, 7, 1000, 2, 64),
    "many small": (5,) * 200,
    "fewer numbers than vectors": (3, 1, 2),
    "an empty one": (0, 40, 0),
}


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of a few dozen numbers, so that small cases go through several levels."""
    monkeypatch.setattr(tallskinny, "NUMBERS", 100)


@pytest.fixture(params=[1, 2**60], ids=["products", "reflections"])
def way(request, monkeypatch):
    """Vectors that are far from dependent by products, as long ones are, or by reflections."""
    monkeypatch.setattr(tallskinny, "LONG", request.param)


def draw(m, sizes, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((m, n)).astype(dtype) for n in sizes)


def flat(blocks):
    return np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks], axis=1).T


def up_to_signs(r):
    return np.where(np.diag(r) < 0, -1, 1)[:, None] * r


@pytest.mark.usefixtures("small_slices", "way")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("m", [1, 6])
def test_factors_equal_those_of_the_flat_matrix(sizes, m):
    blocks = draw(m, sizes)
    q, r = orthonormalise(np, blocks)
    R = np.linalg.qr(flat(blocks), mode="r")
    assert [b.shape for b in q] == [b.shape for b in blocks]
    np.testing.assert_allclose(up_to_signs(r), up_to_signs(R), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(flat(q).T @ flat(q), np.eye(m), atol=1e-13)
    np.testing.assert_allclose(flat(q) @ r, flat(blocks), atol=1e-12)
    np.testing.assert_array_equal(r, np.triu(r))


def test_vectors_that_are_no_numbers_are_left_to_what_comes_after():
    rows = np.ones((4, tallskinny.LONG // 4))
    rows[2, 7] = np.nan
    assert np.isnan(orthonormalise(np, (rows,))[1]).any()


@pytest.mark.usefixtures("small_slices")
def test_more_vectors_than_numbers_leave_zeros():
    blocks = draw(9, (2, 3))
    q, r = orthonormalise(np, blocks)
    np.testing.assert_allclose(flat(q) @ r, flat(blocks), atol=1e-13)
    np.testing.assert_allclose(flat(q).T @ flat(q), np.diag([1.0] * 5 + [0.0] * 4), atol=1e-13)
    np.testing.assert_array_equal(r[5:], 0)


def ill_conditioned(condition, m=20, sizes=(3000, 10, 5000), dtype=np.float32):
    P = sum(sizes)
    left = np.linalg.qr(np.random.default_rng(1).standard_normal((P, m)))[0]
    right = np.linalg.qr(np.random.default_rng(2).standard_normal((m, m)))[0]
    rows = ((left * np.geomspace(1, 1 / condition, m)) @ right.T).T.astype(dtype)
    return tuple(np.split(rows, np.cumsum(sizes)[:-1], axis=1))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("condition", [10, 1e3, 1e6, 1e12])
def test_an_ill_conditioned_float32_matrix_is_factored_to_rounding(condition):
    blocks = ill_conditioned(condition)
    q, r = orthonormalise(np, blocks)
    assert r.dtype == np.float32
    np.testing.assert_allclose(flat(q).T @ flat(q), np.eye(20), atol=2e-6)
    np.testing.assert_allclose(flat(q) @ r.astype(float), flat(blocks), atol=2e-6 * np.abs(flat(blocks)).max())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_factors_scale_with_the_matrix_in_float32(scale):
    blocks = draw(5, (3000, 10), dtype=np.float32)
    q, r = orthonormalise(np, tuple(np.float32(scale) * block for block in blocks))
    np.testing.assert_allclose(flat(q).T @ flat(q), np.eye(5), atol=2e-6)
    np.testing.assert_allclose(up_to_signs(r) / scale, up_to_signs(np.linalg.qr(flat(blocks))[1]), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_slices", "way")
def test_dependent_and_zero_columns_get_vectors_of_their_own():
    a, b = draw(2, (70, 30)), draw(2, (70, 30), seed=1)
    blocks = tuple(np.concatenate([x, 0 * x[:1], x, y], axis=0) for x, y in zip(a, b, strict=True))
    q, r = orthonormalise(np, blocks)
    np.testing.assert_allclose(flat(q).T @ flat(q), np.eye(7), atol=1e-13)
    np.testing.assert_allclose(flat(q) @ r, flat(blocks), atol=1e-12)
    np.testing.assert_allclose(np.diag(r)[[2, 3, 4]], 0, atol=1e-13)
    nothing, r = orthonormalise(np, tuple(0 * block for block in blocks))
    np.testing.assert_allclose(flat(nothing).T @ flat(nothing), np.eye(7), atol=1e-13)
    np.testing.assert_array_equal(r, 0)


@pytest.mark.usefixtures("small_slices", "way")
@pytest.mark.parametrize("noise", [1.0, 1e-5, 1e-9])
def test_a_basis_grows_by_vectors_orthogonal_to_it(noise):
    """Also where new vectors lie in it but for `noise`."""
    sizes = (300, 7, 100)
    old, _ = orthonormalise(np, draw(8, sizes))
    fresh = draw(5, sizes, seed=1)
    mix = np.random.default_rng(2).standard_normal((5, 8))
    blocks = tuple(mix @ q + noise * y for q, y in zip(old, fresh, strict=True))
    q, c, r = extend_basis(np, old, blocks)
    both = np.concatenate([flat(old), flat(q)], axis=1)
    np.testing.assert_allclose(both.T @ both, np.eye(13), atol=1e-13)
    np.testing.assert_allclose(flat(old) @ c + flat(q) @ r, flat(blocks), atol=1e-12)
    np.testing.assert_array_equal(r, np.triu(r))
    again, r_again = orthonormalise(np, blocks, against=old)
    np.testing.assert_array_equal(r_again, r)
    np.testing.assert_array_equal(flat(again), flat(q))


@pytest.mark.parametrize("sizes", [(6, 3), (400, 3)])
def test_beside_a_basis_what_holds_nothing_new_still_gives_orthonormal_vectors_or_zeros(sizes):
    """Vectors in the span of the basis, zeros, and more vectors than the space has left."""
    old, _ = orthonormalise(np, draw(4, sizes))
    inside, outside = np.random.default_rng(3).standard_normal((3, 4)), draw(3, sizes, seed=4)
    blocks = tuple(np.concatenate([inside @ q, 0 * q[:2], y], axis=0) for q, y in zip(old, outside, strict=True))
    q, c, r = extend_basis(np, old, blocks)
    gram = flat(q).T @ flat(q)
    np.testing.assert_allclose(
        gram, np.diag([1.0] * min(8, sum(sizes) - 4) + [0.0] * max(0, 12 - sum(sizes))), atol=1e-12
    )
    np.testing.assert_allclose(flat(old).T @ flat(q), 0, atol=1e-12)
    np.testing.assert_allclose(flat(old) @ c + flat(q) @ r, flat(blocks), atol=1e-12)


@pytest.mark.usefixtures("small_slices")
def test_separated_vectors_have_full_rank_in_every_slice_and_change_little():
    blocks = draw(6, (90, 40, 3), dtype=np.float64)
    blocks = (0 * blocks[0], *blocks[1:])
    for start in (0, 4):
        apart = separate(np, blocks, start)
        length = np.linalg.norm(flat(blocks), axis=0).max()
        change = np.linalg.norm(flat(apart) - flat(blocks), axis=0)
        np.testing.assert_array_less(change, 2 * np.finfo(float).eps ** (2 / 3) * length)
        assert np.linalg.matrix_rank(apart[0][:, :20], tol=1e-20) == 6
        assert np.linalg.matrix_rank(apart[0][:, 60:], tol=1e-20) == 6


def test_no_vectors_give_no_basis():
    empty = (np.zeros((0, 30)), np.zeros((0, 2)))
    q, r = orthonormalise(np, empty)
    assert [b.shape for b in q] == [(0, 30), (0, 2)]
    assert r.shape == (0, 0)
    old, _ = orthonormalise(np, draw(3, (30, 2)))
    q, c, r = extend_basis(np, old, empty)
    assert q[0].shape == (0, 30)
    assert c.shape == (3, 0)
    blocks = draw(3, (30, 2))
    np.testing.assert_array_equal(orthonormalise(np, blocks, against=empty)[1], orthonormalise(np, blocks)[1])


@pytest.mark.usefixtures("small_slices")
def test_only_the_standard_is_needed():
    blocks, old = draw(6, (90, 40, 3)), orthonormalise(np, draw(4, (90, 40, 3), seed=1))[0]
    wanted = extend_basis(np, old, separate(np, blocks))
    device = array_api_strict.Device("device1")
    there = [tuple(array_api_strict.asarray(b, device=device) for b in bs) for bs in (old, blocks)]
    q, c, r = extend_basis(array_api_strict, there[0], separate(array_api_strict, there[1]))
    assert r.device == q[0].device == device
    home = array_api_strict.Device("CPU_DEVICE")
    for found, want in zip((*q, c, r), (*wanted[0], *wanted[1:]), strict=True):
        np.testing.assert_allclose(np.asarray(found.to_device(home)), want, atol=1e-13)
