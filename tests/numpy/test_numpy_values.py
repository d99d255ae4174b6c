"""A linearization of NumPy arrays is a value: nothing that happens around it changes it, and it changes nothing."""

import threading

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import trace_stack

import ntkest
from ntkest import NTKError
from tests.numpy.numpy_cases import RECURRENT, draw, recurrent


def images(J):
    return np.concatenate(J.vjp(np.eye(J.outputs.size)), axis=1), J.jvp(tuple(np.ones((1, p.size)) for p in J.params))


def test_later_updates_of_parameters_and_inputs_are_not_seen():
    params, x, extra = {n: a.copy() for n, a in RECURRENT.items()}, draw(2, 3, 2), [draw(3)]
    J = ntkest.linearize(lambda p, x, more: recurrent(p, x) * more[0], params, x, more=extra)
    outputs, before = J.outputs.copy(), images(J)
    for array in (*params.values(), x, *extra):
        array *= -3
    extra.clear()
    np.testing.assert_array_equal(J.outputs, outputs)
    for old, new in zip(before, images(J), strict=True):
        np.testing.assert_array_equal(old, new)


def test_calls_leave_parameters_and_inputs_as_they_were():
    params, x = {n: a.copy() for n, a in RECURRENT.items()}, draw(2, 3, 2)
    images(ntkest.linearize(recurrent, params, x))
    np.testing.assert_array_equal(x, draw(2, 3, 2))
    for name, array in params.items():
        np.testing.assert_array_equal(array, RECURRENT[name])


def test_at_equals_a_fresh_linearization_and_leaves_the_old_one():
    x, other = draw(2, 3, 2), {name: a + 0.1 for name, a in RECURRENT.items()}
    J = ntkest.linearize(recurrent, RECURRENT, x)
    before = images(J)
    moved, fresh = J.at(other), ntkest.linearize(recurrent, other, x)
    np.testing.assert_array_equal(moved.outputs, fresh.outputs)
    assert (moved.examples, moved.param_names) == (fresh.examples, fresh.param_names)
    for a, b in zip(images(moved), images(fresh), strict=True):
        np.testing.assert_array_equal(a, b)
    for old, new in zip(before, images(J), strict=True):
        np.testing.assert_array_equal(old, new)


def test_at_refuses_another_structure_shape_or_result():
    J = ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2))
    with pytest.raises(NTKError, match="'input' is missing"):
        J.at({"recurrent": RECURRENT["recurrent"]})
    with pytest.raises(NTKError, match=r"'input' of shape \(4, 3\)"):
        J.at({"recurrent": RECURRENT["recurrent"], "input": draw(4, 3)})
    with pytest.raises(NTKError, match="NaN"):
        J.at({"recurrent": RECURRENT["recurrent"] * np.nan, "input": RECURRENT["input"]})


def test_autograd_is_left_as_it_was_even_after_a_failure():
    top = trace_stack.top
    with pytest.raises(NTKError):
        ntkest.linearize(lambda w: anp.array([float(v) for v in w]), draw(3))
    assert trace_stack.top == top
    np.testing.assert_allclose(autograd.grad(lambda w: anp.sum(w**2))(draw(3)), 2 * draw(3))


def test_threads_do_not_disturb_each_other():
    expected = images(ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2)))
    wrong, top = [], trace_stack.top

    def work():
        for _ in range(5):
            found = images(ntkest.linearize(recurrent, RECURRENT, draw(2, 3, 2)))
            if not all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert trace_stack.top == top
