"""The jax adapter's gradients with respect to inputs, through kernels."""

import jax.numpy as jnp
import pytest
from ntkest_jax import backend

import ntkest
from ntkest.testing import check_value_and_gradient


def make(case, inputs):
    params = {name: jnp.asarray(p) for name, p in case.params.items()}
    f = lambda p, x: case.function(jnp, p, x)  # noqa: E731
    return ntkest.linearize(f, params, jnp.asarray(inputs), differentiable=True, check=False, batch_axis=0)


def test_gradients_go_through_kernels_to_inputs():
    check_value_and_gradient(backend, make)


@pytest.mark.usefixtures("float64")
def test_gradients_go_through_kernels_to_inputs_in_double_precision():
    check_value_and_gradient(backend, make, "float64")
