"""`from_jacobian` of a Jacobian that HIPS autograd has written out."""

import autograd.numpy as anp
import numpy as np
from autograd import jacobian

import ntkest


def test_a_jacobian_written_out_by_autograd_has_the_derivatives_of_the_function():
    def f(w):
        return anp.tanh(anp.dot(anp.reshape(w, (3, 2)), anp.asarray([0.5, -2.0])))

    w = np.random.default_rng(0).standard_normal(6)
    v = np.random.default_rng(1).standard_normal((1, 6))
    J = ntkest.from_jacobian(jacobian(f)(w))
    step = 1e-6
    quotient = (f(w + step * v[0]) - f(w - step * v[0])) / (2 * step)
    np.testing.assert_allclose(J.jvp((v,))[0], quotient, rtol=1e-7)
