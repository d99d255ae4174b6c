"""The compact form of a linearization: fewer parameters, the same kernel, and the same estimates through it."""

import math

import numpy as np
import pytest

import ntkest
from benchmarks.overhead_worker import AsItIs
from ntkest.linearization import InvalidValueError
from ntkest.testing import ConformanceError, laws
from ntkest.testing.host import to_host
from ntkest.testing.subject import Subject
from tests.networks import available, linearized, network

WITH = [name for name in available() if name in ("torch", "jax")]
pytestmark = pytest.mark.skipif(not WITH, reason="no framework here has compact forms")
in_torch = pytest.mark.needs("torch")  # in other frameworks compilations take long
WIDE = (30, 40, 40, 3)
TWO_SIDED = ["hutch++", "hutchinson", "nystrom++", "adaptive-hutch++", "xnystrace", "xtrace", "xtrace-power"]


def sizes(J):
    return [math.prod(p.shape) for p in J.params]


def kernels(J):
    """J_l J_lᵀ of each block, in float64."""
    unit = J.xp.asarray(np.eye(math.prod(J.outputs.shape)).astype(str(J.outputs.dtype).removeprefix("torch.")))
    return [rows @ rows.T for rows in (to_host(block).astype(np.float64) for block in J.vjp(unit))]


@pytest.fixture(params=WITH)
def backend(request):
    if request.param == "jax":
        import jax

        with jax.enable_x64(True):
            yield request.param
    else:
        yield request.param


def test_kernel_of_each_block_is_that_of_the_whole_jacobian(backend):
    net = network(WIDE, N=4)
    J = linearized(net, backend)
    small = J.compact
    assert sizes(small) == [4 * 40, 40, 4 * 40, 40, 40 * 3, 3]
    assert small.param_names == J.param_names
    np.testing.assert_array_equal(to_host(small.outputs), to_host(J.outputs))
    for found, rows in zip(kernels(small), net.blocks().values(), strict=True):
        np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-10, atol=1e-10 * np.max(rows @ rows.T))
    v = tuple(J.xp.asarray(np.random.default_rng(0).standard_normal((3, n))) for n in sizes(small))
    omega = J.xp.asarray(np.random.default_rng(1).standard_normal((2, 12)))
    left = to_host(omega) @ to_host(small.jvp(v)).T
    right = sum(to_host(a) @ to_host(b).T for a, b in zip(small.vjp(omega), v, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-10)


def test_it_is_made_once_and_is_its_own(backend):
    small = linearized(network(WIDE, N=4), backend).compact
    assert small.compact is small
    J = linearized(network(WIDE, N=4), backend)
    assert J.compact is J.compact is not J


@pytest.mark.parametrize("N", [20, 45])
def test_many_examples_leave_nothing_to_save(backend, N):
    J = linearized(network(WIDE, N=N), backend)
    assert J.compact is J


@pytest.mark.parametrize("kind", ["zeros", "twins"])
def test_inputs_of_low_rank(backend, kind):
    net = network(WIDE, N=4, activation="sin")
    net.x[...] = 0.0 if kind == "zeros" else net.x[:1]
    J = linearized(net, backend)
    assert J.compact is not J
    for found, rows in zip(kernels(J.compact), net.blocks().values(), strict=True):
        np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-10, atol=1e-12)


def test_another_point_has_a_form_of_its_own(backend):
    net, other = network(WIDE, N=4), network(WIDE, N=4, seed=1)
    J = linearized(net, backend)
    with pytest.raises(InvalidValueError, match="belongs to its point"):
        J.compact.at(J.params)
    moved = J.at(linearized(other, backend).params if backend == "torch" else _params(other))
    net.params[:] = other.params
    wanted = [rows @ rows.T for rows in net.blocks().values()]
    for found, K in zip(kernels(moved.compact), wanted, strict=True):
        np.testing.assert_allclose(found, K, rtol=1e-10, atol=1e-10 * np.max(K))


def _params(net):
    import jax.numpy as jnp

    return [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in net.params]


def both_ways(backend, quantity, **spent):
    """An estimate through the compact form, and one without it."""
    J = linearized(network(WIDE, N=6), backend, batch_axis=None)
    return (getattr(ntkest, quantity)(K, **spent) for K in (J, AsItIs(J)))


@in_torch
@pytest.mark.parametrize("method", ["reverse", *TWO_SIDED, "exact", "auto"])
@pytest.mark.parametrize("quantity", ["trace", "effective_rank"])
def test_estimates_are_those_through_the_whole(method, quantity):
    through, plain = both_ways("torch", quantity, method=method, **({} if method == "exact" else {"passes": 48}))
    assert (through.n_jvp, through.n_vjp) == (plain.n_jvp, plain.n_vjp)
    assert float(through) == pytest.approx(float(plain), rel=1e-9)
    assert float(through.std_error) == pytest.approx(float(plain.std_error), rel=1e-5, abs=1e-9 * float(plain))


def test_estimates_in_every_framework(backend):
    through, plain = both_ways(backend, "effective_rank", method="hutch++", passes=48)
    assert float(through) == pytest.approx(float(plain), rel=1e-9)
    through, plain = both_ways(backend, "trace", method="reverse", passes=20, by="layer")
    assert {name: float(part) for name, part in through.parts.items()} == pytest.approx(
        {name: float(part) for name, part in plain.parts.items()}, rel=1e-9
    )


@in_torch
@pytest.mark.parametrize("method", ["hutch++", "hutchinson", "exact"])
def test_layers_apart(method):
    spent = {} if method == "exact" else {"passes": 60}
    through, plain = both_ways("torch", "frobenius_norm", by="layer", method=method, **spent)
    assert {name: float(part) for name, part in through.parts.items()} == pytest.approx(
        {name: float(part) for name, part in plain.parts.items()}, rel=1e-9
    )


@in_torch
def test_tangents_are_drawn_for_the_parameters_as_they_are():
    """Probes and results of forward mode do not depend on whether there is a compact form."""
    for method in ("forward", "hutch++jv"):
        through, plain = both_ways("torch", "trace", method=method, passes=40)
        assert float(through) == pytest.approx(float(plain), rel=1e-12)


def test_eigenvalues_and_vectors(backend):
    net = network(WIDE, N=6)
    J = linearized(net, backend)
    A = net.jacobian()
    wanted = np.linalg.eigvalsh(A @ A.T)[::-1][:3]
    for vectors in (False, "outputs", "parameters"):
        found = ntkest.eigenvalues(J, 3, tol=1e-10, vectors=vectors)
        np.testing.assert_allclose(found.values, wanted, rtol=1e-8)
    rows = np.concatenate([to_host(block) for block in found.vectors], axis=1)
    np.testing.assert_allclose(np.linalg.norm(rows @ A.T, axis=1) ** 2, wanted, rtol=1e-8)


@in_torch
def test_partial_traces():
    J = linearized(network(WIDE, N=6), "torch")
    for method in ("reverse", "exact"):
        spent = {} if method == "exact" else {"passes": 60}
        through, plain = (ntkest.partial_trace(K, "example", method=method, **spent) for K in (J, AsItIs(J)))
        np.testing.assert_allclose(to_host(through.value), to_host(plain.value), rtol=1e-9)


class With(AsItIs):
    """A linearization with another for its compact form."""

    def __init__(self, J, compact):
        super().__init__(J)
        self.compact = compact


@pytest.mark.parametrize("factor", [1.0, 1.001], ids=["right", "off"])
def test_the_law_refuses_another_kernel(factor):
    rng = np.random.default_rng(0)
    right = np.linalg.qr(rng.standard_normal((20, 4)))[0]  # J is within the span of four directions
    rows = rng.standard_normal((5, 4))
    J, small = (ntkest.from_jacobian({"w": A}, (5,)) for A in (rows @ right.T, factor * rows))
    subject = Subject(With(J, small), 1e-9)
    if factor == 1.0:
        laws.compact(subject)
    else:
        with pytest.raises(ConformanceError, match="inner products of gradients of 'w'"):
            laws.compact(subject)
