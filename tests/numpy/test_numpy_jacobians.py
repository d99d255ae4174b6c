"""Both maps of the NumPy adapter against Jacobians by differences of the plain function."""

import autograd.numpy as anp
import numpy as np
import pytest
from ntkest_numpy.trees import replaced

import ntkest
from tests.numpy.numpy_cases import CASES, RECURRENT, draw, naive_jacobian, recurrent


def build(case, **options):
    return ntkest.linearize(case.function, case.params, *case.inputs, output=case.output, **options, **case.kwargs)


def plain_call(case, J):
    """Blocks to outputs by the plain function, side by side if there are several."""

    def call(blocks):
        values = {name: b if b.ndim else float(b) for name, b in zip(J.param_names, blocks, strict=True)}
        out = case.function(replaced(case.params, values), *case.inputs, **case.kwargs)
        if case.output is not None:
            out = out[case.output]
        if isinstance(out, dict):
            out = np.concatenate([v.reshape(v.shape[0], -1) for v in out.values()], axis=1)
        return out

    return call


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_jvp_and_vjp_equal_the_naive_jacobian(case):
    J = build(case)
    A = naive_jacobian(J, plain_call(case, J))
    ends = np.cumsum([p.size for p in J.params])[:-1]
    forward = J.jvp(tuple(np.split(np.eye(A.shape[1]), ends, axis=1)))
    reverse = np.concatenate(J.vjp(np.eye(A.shape[0])), axis=1)
    scale = np.abs(A).max()
    np.testing.assert_allclose(forward.T, A, atol=1e-8 * scale)
    np.testing.assert_allclose(reverse, A, atol=1e-8 * scale)
    np.testing.assert_allclose(forward.T, reverse, atol=1e-13 * scale)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_primal_names_examples_and_modes_are_as_the_case_says(case):
    J = build(case)
    np.testing.assert_array_equal(J.outputs, plain_call(case, J)(J.params))
    assert J.param_names == case.names
    assert J.examples == case.examples
    assert J.modes == {"jvp", "vjp"}
    assert J.passes_per_jvp == case.passes_per_jvp
    assert all(type(a) is np.ndarray for a in (J.outputs, *J.params))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_passes_stay_in_the_dtype_of_the_model(dtype):
    params = {name: a.astype(dtype) for name, a in RECURRENT.items()}

    def function(params, x):
        return recurrent(params, x)[:, 1:].astype(dtype)

    J = ntkest.linearize(function, params, draw(2, 3, 2).astype(dtype))
    assert J.outputs.dtype == dtype
    assert J.jvp(tuple(np.ones((1, p.size), dtype) for p in J.params)).dtype == dtype
    assert {block.dtype for block in J.vjp(np.ones((1, J.outputs.size), dtype))} == {np.dtype(dtype)}


@pytest.mark.parametrize(("params", "names"), [("recurrent", ["recurrent"]), (lambda n: n[0] == "i", ["input"])])
def test_selected_parameters_are_the_only_blocks(params, names):
    whole = ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2))
    part = ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2), params=params)
    assert list(part.param_names) == names
    omega = draw(3, part.outputs.size)
    expected = dict(zip(whole.param_names, whole.vjp(omega), strict=True))
    for name, block in zip(part.param_names, part.vjp(omega), strict=True):
        np.testing.assert_allclose(block, expected[name], rtol=1e-13)
    moved = part.at({name: 2 * a for name, a in RECURRENT.items()})  # parameters left out move too
    np.testing.assert_array_equal(moved.outputs, recurrent({n: 2 * a for n, a in RECURRENT.items()}, draw(2, 3, 2)))


def test_exponent_tells_the_scale_of_images():
    w, x = draw(3, 2).astype(np.float32), draw(4, 3).astype(np.float32)
    small, large = (
        ntkest.linearize(lambda w, x, s=s: s * anp.tanh(anp.dot(x, w)), w, x)
        for s in (np.float32(2.0**-50), np.float32(2.0**50))
    )
    assert large.exponent - small.exponent == 100


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, None])
def test_map_gives_the_images_in_any_chunks(chunk):
    J = ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2))
    omega, v = draw(7, J.outputs.size), tuple(draw(7, p.size) for p in J.params)
    sums = J.map_vjp(lambda blocks: tuple(b.sum(axis=1) for b in blocks), omega, chunk=chunk)
    for total, block in zip(sums, J.vjp(omega), strict=True):
        np.testing.assert_allclose(total, block.sum(axis=1))
    halves = J.map_jvp(lambda image: image, v, expand=lambda t: tuple(b / 2 for b in t), chunk=chunk)
    np.testing.assert_allclose(halves, J.jvp(v) / 2)
