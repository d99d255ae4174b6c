"""Gradients of single examples: exact where they must be, unbiased otherwise, and refused where there are none."""

import itertools

import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.estimators import BY_EXAMPLE, Counted, Problem
from ntkest.inference import alignment_of, effective_rank_of, frobenius_norm_of, target_alignment_of, trace_of
from ntkest.linearization import InvalidValueError, UnsupportedModeError, identity, unfactored
from ntkest.quantities import measure
from ntkest.tangents import Gram, SquareNorms, group_parameters
from tests import oracle
from tests.networks import linearized, mlp, network

METHOD = "reverse-by-example"
N, D = 6, 3
BLOCKS = {"a.w": 12, "a.b": 3, "b.w": 9}
LAYERS = {"a": ("a.w", "a.b"), "b": ("b.w",)}


def jacobian(seed, n=N, d=D, blocks=BLOCKS):
    draw = np.random.default_rng(seed)
    common = {name: draw.standard_normal((d, size)) for name, size in blocks.items()}  # so that examples correlate
    return {
        name: (common[name] + 0.5 * draw.standard_normal((n, d, size))).reshape(n * d, size)
        for name, size in blocks.items()
    }


def whole(blocks, names=None):
    return np.concatenate([block for name, block in blocks.items() if names is None or name in names], axis=1)


A, B, Y = jacobian(0), jacobian(1), np.random.default_rng(2).standard_normal((N, D))


# What adapters give ---------------------------------------------------------------------------------------------------


def test_gradients_of_examples_are_rows_times_their_cotangents(backend):
    J, A = mlp(backend, sizes=(3, 5, 2), N=4, dtype="float32")
    omega = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    wanted = np.einsum("knd,ndp->knp", omega.reshape(3, 4, 2), A.reshape(4, 2, -1))
    for chunk in (None, 1, 3, 5):
        images = J.map_example_vjp(identity, J.xp.asarray(omega), chunk=chunk)
        found = np.concatenate([np.asarray(unfactored(J.xp, image)) for image in images], axis=2)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_wide_layers_come_in_factors_and_norms_are_those_of_the_products(framework):
    if framework == "numpy":
        pytest.skip("autograd has no factors to give")
    J, A = mlp(framework, sizes=(20, 30, 10), N=5, dtype="float32")
    omega = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    images = J.map_example_vjp(identity, J.xp.asarray(omega))
    assert [isinstance(image, tuple) for image in images] == [True, False, True, False]
    assert J.example_size == (20 + 30) + 30 + (30 + 10) + 10
    norms = J.map_example_vjp(SquareNorms(J.xp, (0,) * 4, 1), J.xp.asarray(omega))
    rows = np.einsum("knd,ndp->knp", omega.reshape(2, 5, 10), A.reshape(5, 10, -1))
    np.testing.assert_allclose(np.asarray(norms)[:, :, 0], np.sum(rows**2, axis=2), rtol=1e-4)


@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize("positions", [1, 3])
def test_norms_and_products_of_factors_equal_those_of_what_they_make(positions, lead):
    draw = np.random.default_rng(0)
    left, right = [
        tuple(draw.standard_normal((*lead, count, s, width)) for width in (5, 7))
        for count, s in ((2, positions), (3, positions + 1))
    ]
    full = [np.einsum("...sp,...sq->...pq", *pair).reshape(*lead, -1, 35) for pair in (left, right)]
    gram = Gram(np, (0,), 1)((left,), (right,))
    np.testing.assert_allclose(gram[0], full[0] @ np.swapaxes(full[1], -1, -2), rtol=1e-12)
    if not lead:
        norms = SquareNorms(np, (0,), 1)((left,))
        np.testing.assert_allclose(norms[:, 0], np.sum(full[0] ** 2, axis=1), rtol=1e-12)


# Exact traces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "layer"])
def test_the_trace_is_exact_from_as_many_passes_as_an_example_has_outputs(backend, by):
    J, A = mlp(backend, sizes=(3, 5, 2), N=4, dtype="float32")
    e = ntkest.trace(J, method=METHOD, passes=50, by=by)
    assert e.passes == 2
    assert float(e) == pytest.approx(np.sum(A**2), rel=1e-5)
    assert "exact: 2 unit cotangents" in e.why
    assert e.interval()[1] - e.interval()[0] < 1e-4 * float(e)
    assert sum(float(part) for part in e.parts.values()) == pytest.approx(float(e) if by else 0, rel=1e-6)
    sampled = ntkest.trace(mlp(backend, sizes=(3, 5, 8), N=4, dtype="float32")[0], method=METHOD, passes=7)
    assert sampled.passes == 7
    assert float(sampled.std_error) > 1e-3 * float(sampled)


def test_to_a_tolerance_the_units_come_when_samples_would_cost_more():
    J = ntkest.from_jacobian(jacobian(0, n=4, d=40), (4, 40))
    e = ntkest.trace(J, method=METHOD, rtol=1e-12, max_passes=500)
    assert float(e) == pytest.approx(np.sum(whole(jacobian(0, n=4, d=40)) ** 2), rel=1e-12)
    assert e.passes <= 16 + 16 + 40
    assert not ntkest.trace(J, method=METHOD, rtol=1e-12, max_passes=39).converged


def test_auto_takes_units_for_traces():
    J = ntkest.from_jacobian(jacobian(0, n=40, d=5), (40, 5))
    for keywords in ({}, {"passes": 20}):
        e = ntkest.trace(J, **keywords)
        assert (e.method, e.passes) == (METHOD, 5)
        assert "5 unit cotangents an example" in e.why
        assert float(e) == pytest.approx(np.sum(whole(jacobian(0, n=40, d=5)) ** 2), rel=1e-12)
    few = ntkest.from_jacobian(whole(jacobian(0, n=40, d=5))[:, :3], (40, 5))
    assert (ntkest.trace(few).method, ntkest.trace(few).passes) == ("exact", 3)


@pytest.mark.needs("torch")
def test_trajectories_have_their_examples_on_axis_one():
    """States (T, N, H): axis 1 is found, and rows of example n are those of ``[:, n]``."""
    import torch

    torch.manual_seed(0)
    gru, x = torch.nn.GRU(2, 3), torch.randn(4, 5, 2)
    J = ntkest.linearize(gru, x, output=0)
    assert J.examples == (1, 5)
    rows = torch.cat(J.vjp(torch.eye(60)), dim=1)
    omega = torch.randn(3, 60)
    wanted = torch.einsum("ktnh,tnhp->knp", omega.reshape(3, 4, 5, 3), rows.reshape(4, 5, 3, -1))
    found = torch.cat(J.map_example_vjp(identity, omega), dim=2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert float(ntkest.trace(J, method=METHOD, passes=12)) == pytest.approx(float(torch.sum(rows**2)), rel=1e-5)


# Sampling -------------------------------------------------------------------------------------------------------------


def norm_trace_and_target(J, **keywords):
    """By the method under test."""
    one = [frobenius_norm_of(0), trace_of(0), target_alignment_of(0)]
    return measure(J, one, targets=Y, method=METHOD, **keywords)


@pytest.mark.parametrize("by", [None, "layer"])
def test_moments_are_unbiased_whole_and_by_layer(by):
    """Means over 400 seeds within 5 standard errors."""
    J = ntkest.from_jacobian(A, (N, D))
    seeds, rows = 400, []
    for seed in range(seeds):
        norm, trace, target = norm_trace_and_target(J, passes=8, seed=seed, by=by)
        parts = [None] if by is None else [None, *LAYERS]
        row = []
        for part in parts:
            n, t, y = (float(e if part is None else e.parts[part]) for e in (norm, trace, target))
            row += [n**2, t, n * y]
        rows.append(row)
    wanted = []
    for names in (None,) if by is None else (None, *LAYERS.values()):
        K, y = oracle.kernel(whole(A, names)), Y.ravel()
        wanted += [(K * K).sum(), np.trace(K), y @ K @ y / (y @ y)]
    rows = np.array(rows)
    spread = np.maximum(rows.std(axis=0, ddof=1), 1e-12 * np.abs(wanted)) / np.sqrt(seeds)
    np.testing.assert_array_less(np.abs(rows.mean(axis=0) - wanted), 5 * spread)


def problem_of(*jacobians, needs, by=None, shape=(N, D), **settings):
    kernels = tuple(Counted(ntkest.from_jacobian(a, shape)) for a in jacobians)
    groups = group_parameters(tuple(jacobians[0]), by)
    return Problem.of(kernels, groups=groups, needs=frozenset(needs), **settings)


NEEDS = (("trace", 0), ("square", 0), ("square", 1), ("cross", 0, 1))


def test_products_of_two_kernels_are_unbiased():
    K, L, found = oracle.kernel(whole(A)), oracle.kernel(whole(B)), []
    for seed in range(400):
        problem = problem_of(A, B, needs=NEEDS)
        state = BY_EXAMPLE.extend(problem, None, BY_EXAMPLE.draw(problem, seed, 0, 3))
        state = BY_EXAMPLE.extend(problem, state, BY_EXAMPLE.draw(problem, seed, 3, 5))
        product = BY_EXAMPLE.moments(problem, state)["cross", 0, 1].value[0]
        found.append(product * 2.0 ** (2 * sum(problem.exponents)))
    assert abs(np.mean(found) - (K * L).sum()) < 5 * np.std(found, ddof=1) / np.sqrt(400)


def test_moments_and_replicates_equal_loops_over_probes_and_examples():
    problem = problem_of(A, B, needs=NEEDS)
    probes = BY_EXAMPLE.draw(problem, 0, 0, 5)
    found = BY_EXAMPLE.moments(problem, BY_EXAMPLE.extend(problem, None, probes))
    _, expand = problem.cotangents(0, probes.cotangents)
    omega = expand(probes.cotangents) * 2.0 ** problem.exponents[0]
    scaled = [whole(blocks).reshape(N, D, -1) / 2.0**e for blocks, e in zip((A, B), problem.exponents, strict=True)]
    g = [np.einsum("knd,ndp->knp", omega.reshape(5, N, D), rows) for rows in scaled]
    for without in (None, 0, 3):
        kept = [k for k in range(5) if k != without]
        for key in NEEDS:
            a, b = key[1], key[-1]
            if key[0] == "trace":
                wanted = np.mean([np.sum(g[a][k] ** 2) for k in kept])
            else:
                gamma = [
                    [[[g[i][k, n] @ g[i][q, m] for m in range(N)] for n in range(N)] for q in range(5)]
                    for i in (a, b)
                    for k in range(5)
                ]
                gamma = np.array(gamma).reshape(2, 5, 5, N, N)
                product = gamma[0] * gamma[1]
                same = np.eye(N, dtype=bool)
                wanted = np.mean([np.sum(product[k, k][~same]) for k in kept])
                wanted += np.mean([np.sum(product[k, q][same]) for k, q in itertools.permutations(kept, 2)])
            got = found[key].value[0] if without is None else found[key].replicates[without, 0]
            assert got == pytest.approx(wanted, rel=1e-12), (key, without)


@pytest.mark.parametrize("by", [None, "layer"])
def test_growing_gives_what_drawing_all_at_once_gives(by):
    def run(cuts, needs):
        problem, state = problem_of(A, B, needs=needs, by=by), None
        for start, stop in itertools.pairwise(cuts):
            state = BY_EXAMPLE.extend(problem, state, BY_EXAMPLE.draw(problem, 3, start, stop))
        return BY_EXAMPLE.moments(problem, state)

    together, pieces = run((0, 14), NEEDS), run((0, 4, 5, 9, 14), NEEDS)
    for key in NEEDS:
        np.testing.assert_allclose(pieces[key].value, together[key].value, rtol=1e-12)
        np.testing.assert_allclose(pieces[key].replicates, together[key].replicates, rtol=1e-12)


def test_windows_of_a_small_memory_budget_stay_unbiased_and_too_small_ones_are_refused():
    J, K = ntkest.from_jacobian(A, (N, D)), oracle.kernel(whole(A))
    each = N * 24 * 8 + 8 * N * N * 3
    squares = [
        float(ntkest.frobenius_norm(J, method=METHOD, passes=11, seed=seed, memory=3 * each)) ** 2
        for seed in range(300)
    ]
    assert abs(np.mean(squares) - (K * K).sum()) < 5 * np.std(squares, ddof=1) / np.sqrt(300)
    with pytest.raises(InvalidValueError, match="keeps the gradients of all examples for two probes"):
        ntkest.frobenius_norm(J, method=METHOD, passes=11, memory=each)
    assert ntkest.frobenius_norm(J, passes=11, memory=each).method != METHOD


def test_the_noise_between_examples_is_gone():
    """At equal passes: a fifth of the error of reverse or less, on examples that have much in common."""
    J = ntkest.from_jacobian(jacobian(0, n=60, d=8), (60, 8))
    for quantity, passes in ((ntkest.trace, 7), (ntkest.frobenius_norm, 12), (ntkest.effective_rank, 12)):
        spread = {
            method: np.std([float(quantity(J, method=method, passes=passes, seed=seed)) for seed in range(40)])
            for method in ("reverse", METHOD)
        }
        assert spread[METHOD] < spread["reverse"] / 5


@pytest.mark.parametrize("passes", [8, 24])
@pytest.mark.parametrize("quantity", [trace_of(0), frobenius_norm_of(0), effective_rank_of(0)], ids=lambda q: q.name)
def test_intervals_cover(quantity, passes):
    """95 % intervals hold the truth in .90 to .99 of 400 runs, up to what chance does to the count."""
    J, A = (ntkest.from_jacobian(jacobian(0, n=8, d=30), (8, 30)), whole(jacobian(0, n=8, d=30)))
    K = oracle.kernel(A)
    truth = {
        "trace": oracle.trace(K),
        "frobenius_norm": oracle.frobenius_norm(K),
        "effective_rank": oracle.effective_rank(K),
    }[quantity.name]
    hits = 0
    for seed in range(400):
        low, high = measure(J, [quantity], method=METHOD, passes=passes, seed=seed)[0].interval(0.95)
        hits += low <= truth <= high
    assert scipy.stats.binom.ppf(0.01, 400, 0.90) <= hits <= scipy.stats.binom.ppf(0.99, 400, 0.99), hits / 400


def test_passes_reported_are_passes_made():
    J, other = ntkest.from_jacobian(A, (N, D)), ntkest.from_jacobian(B, (N, D))
    for quantities, kernels, targets, wanted in (
        ([trace_of(0)], (), None, D),
        ([frobenius_norm_of(0)], (), None, 9),
        ([target_alignment_of(0)], (), Y, 9),
        ([alignment_of(0, 1)], (other,), None, 8),
    ):
        e = measure(J, quantities, others=kernels, targets=targets, method=METHOD, passes=9)[0]
        assert (e.passes, e.n_vjp, e.n_jvp) == (wanted, wanted, 0)


def test_same_numbers_on_every_backend(backend):
    net = network((3, 5, 4), N=5, dtype="float32")
    reference = ntkest.summary(linearized(net, "dense-numpy"), method=METHOD, passes=6, by="layer")
    found = ntkest.summary(linearized(net, backend), method=METHOD, passes=6, by="layer")
    for name, e in reference.estimates.items():
        assert float(found[name]) == pytest.approx(float(e), rel=1e-4)
        assert found[name].interval() == pytest.approx(e.interval(), rel=1e-3)
        for part, p in e.parts.items():
            assert float(found[name].parts[part]) == pytest.approx(float(p), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_any_scale_in_float32(scale):
    small = {name: (block / 1e2).astype(np.float32) for name, block in A.items()}
    J = ntkest.from_jacobian(small, (N, D))
    scaled = ntkest.from_jacobian({k: (b * np.float32(scale**0.5)) for k, b in small.items()}, (N, D))
    for quantity, power in ((ntkest.trace, 1), (ntkest.frobenius_norm, 1), (ntkest.effective_rank, 0)):
        ours, reference = (quantity(j, method=METHOD, passes=8) for j in (scaled, J))
        assert float(ours) / scale**power == pytest.approx(float(reference), rel=1e-4)


def test_a_zero_kernel_has_a_trace_of_zero():
    zero = ntkest.from_jacobian(np.zeros((6, 7)), (3, 2))
    for passes in (1, 2, 9):
        assert ntkest.trace(zero, method=METHOD, passes=max(passes, 2)).interval() == (0.0, 0.0)
    assert float(ntkest.frobenius_norm(zero, method=METHOD, passes=9)) == 0.0


# Refusals -------------------------------------------------------------------------------------------------------------


def test_without_examples_the_error_names_the_way_out():
    J = ntkest.from_jacobian(whole(A))
    for keywords in ({"passes": 9}, {"rtol": 0.1}):
        with pytest.raises(InvalidValueError, match="batch_axis="):
            ntkest.trace(J, method=METHOD, **keywords)
    with pytest.raises(InvalidValueError, match="batch_axis="):
        J.map_example_vjp(identity, np.ones((1, N * D)))


def test_centring_mixes_examples_and_is_refused():
    J = ntkest.from_jacobian(A, (N, D))
    with pytest.raises(InvalidValueError, match="centring mixes the examples"):
        ntkest.trace(J, method=METHOD, passes=9, centered=True)
    assert ntkest.trace(J, passes=9, centered="examples").method != METHOD


def test_an_operator_and_an_adapter_without_gradients_of_examples_are_refused():
    from scipy.sparse.linalg import aslinearoperator

    J = ntkest.from_jacobian(aslinearoperator(whole(A)), (N, D))
    with pytest.raises(UnsupportedModeError, match="map_example_vjp"):
        ntkest.trace(J, method=METHOD, passes=9)
    assert ntkest.trace(J, passes=9).method != METHOD


def test_kernels_with_examples_on_different_axes_are_refused():
    J, other = (ntkest.from_jacobian(a, (N, D)) for a in (A, B))
    other.examples = (1, D)
    with pytest.raises(InvalidValueError, match="same axis of examples"):
        ntkest.alignment(J, other, method=METHOD, passes=20)


def test_inputs_that_are_hidden_from_the_linearization_are_no_examples(framework):
    """With check=False nobody has looked whether the axis that was named is one of examples."""
    from tests.networks import _tools

    as_array, _ = _tools(framework, "tanh")
    x = as_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))
    weight = as_array(np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32))
    J = ntkest.linearize(lambda p: x @ p, weight, batch_axis=0, check=False)
    with pytest.raises(UnsupportedModeError, match="map_example_vjp"):
        ntkest.trace(J, method=METHOD, passes=4)
    assert ntkest.trace(J, passes=4).method != METHOD


def test_too_few_passes_are_refused():
    J = ntkest.from_jacobian(jacobian(0, n=3, d=9), (3, 9))
    with pytest.raises(InvalidValueError, match="passes=3 is too few"):
        ntkest.trace(J, method=METHOD, passes=3)


# Batches --------------------------------------------------------------------------------------------------------------


def test_batches_give_what_one_batch_gives(framework):
    net = network((3, 5, 4), N=7, dtype="float32")
    one = linearized(net, framework)
    many = batched(net, framework, (3, 2, 2))
    omega = one.xp.asarray(np.random.default_rng(0).standard_normal((3, 28)).astype(np.float32))
    left, right = (J.map_example_vjp(SquareNorms(J.xp, (0,) * 4, 1), omega) for J in (one, many))
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-4)
    for quantity in (ntkest.trace, ntkest.frobenius_norm):
        e, wanted = (quantity(J, method=METHOD, passes=8) for J in (many, one))
        assert float(e) == pytest.approx(float(wanted), rel=1e-4)
        assert e.passes == wanted.passes


def batched(net, framework, lengths):
    from tests.networks import _tools

    as_array, activation = _tools(framework, net.activation)

    def forward(params, x):
        for weight, bias in params[:-1]:
            x = activation(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    cuts = np.cumsum((0, *lengths))
    batches = [as_array(net.x[start:stop]) for start, stop in itertools.pairwise(cuts)]
    return ntkest.linearize_batches(forward, [(as_array(w), as_array(b)) for w, b in net.params], batches)
