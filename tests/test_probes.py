"""Probes: a pinned stream, independent of what was drawn before, expanded to the right signs."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.probes import (
    Centre,
    cotangent_expander,
    draw_cotangents,
    draw_normal_cotangents,
    draw_tangents,
    probe_exponent,
    tangent_expander,
)
from tests import oracle


def jacobian(M=21, sizes=(10, 3), xp=np):
    draw = np.random.default_rng(0)
    return ntkest.from_jacobian({f"b{i}": xp.asarray(draw.standard_normal((M, n))) for i, n in enumerate(sizes)})


def test_the_stream_is_pinned():
    """Other values here break every result that somebody kept: a breaking change."""
    J = jacobian()
    assert draw_cotangents(J, 0, 0, 3).tolist() == GOLDEN_COTANGENTS
    assert [block.tolist() for block in draw_tangents(J, 7, 2, 4)] == GOLDEN_TANGENTS


GOLDEN_COTANGENTS = [[155, 216, 228], [198, 22, 248], [252, 14, 220]]
GOLDEN_TANGENTS = [[[150, 200], [120, 214]], [[14], [18]]]


def test_a_probe_does_not_depend_on_how_many_are_drawn_or_where_a_range_starts():
    J = jacobian()
    whole = draw_cotangents(J, 3, 0, 10)
    parts = np.concatenate([draw_cotangents(J, 3, a, b) for a, b in ((0, 1), (1, 6), (6, 10))])
    np.testing.assert_array_equal(whole, parts)
    for block, other in zip(draw_tangents(J, 3, 4, 9), draw_tangents(J, 3, 0, 9), strict=True):
        np.testing.assert_array_equal(block, other[4:])


def test_probes_seeds_streams_and_blocks_differ():
    J = ntkest.from_jacobian({"a": np.ones((64, 64)), "b": np.ones((64, 64))})
    drawn = [
        draw_cotangents(J, 0, 0, 2)[0],
        draw_cotangents(J, 0, 0, 2)[1],
        draw_cotangents(J, 1, 0, 1)[0],
        draw_cotangents(J, 2**64 - 1, 0, 1)[0],
        *(block[0] for block in draw_tangents(J, 0, 0, 1)),
        *(block[0] for block in draw_tangents(J, 0, 0, 1, which=1)),
    ]
    assert len({row.tobytes() for row in drawn}) == len(drawn)


@pytest.mark.parametrize("exponent", [0, 5, -30])
@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
@pytest.mark.parametrize("fused", [False, True], ids=["table", "shifts"])
def test_bits_expand_to_signs_least_significant_bit_first(xp, exponent, fused):
    J = jacobian(xp=xp)
    bits = draw_cotangents(J, 0, 0, 4)
    unpacked = np.unpackbits(np.asarray(bits), axis=1, bitorder="little")[:, :21]
    wanted = np.where(unpacked == 1, -1.0, 1.0) * 2.0**-exponent
    expand = replace(cotangent_expander(J, exponent), fused=fused)
    np.testing.assert_array_equal(np.asarray(expand(bits)), wanted)
    expand = replace(tangent_expander(J, exponent), fused=fused)
    for block, size in zip(expand(draw_tangents(J, 0, 0, 4)), (10, 3), strict=True):
        assert block.shape == (4, size)
        np.testing.assert_array_equal(np.abs(np.asarray(block)), 2.0**-exponent)


def test_tangents_of_one_part_are_zero_elsewhere_and_equal_there():
    J = jacobian()
    bits = draw_tangents(J, 0, 0, 4)
    whole, part = tangent_expander(J, 0)(bits), tangent_expander(J, 0, frozenset({1}))(bits)
    np.testing.assert_array_equal(part[0], 0)
    np.testing.assert_array_equal(part[1], whole[1])


def test_signs_are_balanced_and_uncorrelated():
    J = ntkest.from_jacobian(np.ones((4096, 1)))
    signs = cotangent_expander(J, 0)(draw_cotangents(J, 11, 0, 64))
    assert abs(signs.mean()) < 5 / np.sqrt(signs.size)
    gram = signs @ signs.T / 4096
    assert np.abs(gram - np.eye(64)).max() < 6 / np.sqrt(4096)


@pytest.mark.parametrize(("axes", "centered"), [((0, 1), True), ((0,), "examples")])
def test_centring_is_the_projector_of_the_definition(axes, centered):
    rows = np.random.default_rng(0).standard_normal((3, 20))
    H = oracle.centring((5, 4), centered)
    np.testing.assert_allclose(Centre((5, 4), axes)(np, rows), rows @ H, atol=1e-14)


def test_draw_probes_gives_what_the_seed_would():
    J = jacobian()
    drawn = ntkest.draw_probes(J, 12, seed=5)
    for estimate in (ntkest.trace, ntkest.effective_rank):
        by_probes, by_seed = estimate(J, probes=drawn), estimate(J, passes=12, seed=5, method="reverse")
        assert float(by_probes) == float(by_seed)
        assert by_probes.passes == by_seed.passes == 12


@pytest.mark.parametrize(
    ("images", "steps"), [(0.0, 0), (0.1, 0), (1.0, 0), (1e3, 0), (3e4, 1), (1e-4, -1), (1e10, 2), (1e-20, -4)]
)
def test_the_exponent_of_probes_changes_in_steps(images, steps):
    """Compiled programs hold it as a constant."""
    assert probe_exponent(ntkest.from_jacobian(np.full((1, 2), images))) == 16 * steps


def test_the_exponent_of_probes_stays_within_half_precision():
    J = ntkest.from_jacobian(np.full((1, 2), 60.0, np.float16))
    assert probe_exponent(J) == J.exponent == 6


def test_the_stream_of_normal_probes_is_pinned():
    J = ntkest.from_jacobian(np.ones((5, 3)))
    expected = [
        [1.73455989, 0.57952321, 0.70827645, 0.22906253, 0.92375517],
        [0.86717242, 0.71977103, 0.35089922, -0.56990594, 0.26306966],
    ]
    np.testing.assert_allclose(draw_normal_cotangents(J, 7, 0, 2), expected, rtol=1e-6)
    np.testing.assert_array_equal(draw_normal_cotangents(J, 7, 1, 2)[0], draw_normal_cotangents(J, 7, 0, 2)[1])
    assert draw_normal_cotangents(J, 7, 3, 3).shape == (0, 5)


def test_normal_probes_are_normal():
    """Against the normal law, along a probe and across neighbours in it."""
    x = draw_normal_cotangents(ntkest.from_jacobian(np.ones((200_001, 1))), 1, 0, 4)
    assert all(scipy.stats.kstest(row, "norm").pvalue > 1e-3 for row in x)
    assert np.abs(np.corrcoef(x) - np.eye(4)).max() < 0.01
    halves = x[:, :100_000], x[:, 100_001:200_001]  # cosine and sine of the same angle
    assert abs(np.mean(halves[0] * halves[1])) < 0.01
    assert abs(np.mean(halves[0] ** 2 * halves[1] ** 2) - 1) < 0.02
