"""The torch adapter passes the conformance kit."""

import array_api_compat.torch as xp
import pytest
import torch
from ntkest_torch import backend

import ntkest
from ntkest.testing import check_backend, check_value_and_gradient


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_adapter_conforms(dtype):
    def make(case):
        params = {name: torch.tensor(p) for name, p in case.params.items()}
        return ntkest.linearize(lambda p, x: case.function(xp, p, x), params, torch.tensor(case.inputs))

    check_backend(make, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_go_through_kernels_to_inputs(dtype):
    def make(case, inputs):
        params = {name: torch.tensor(p) for name, p in case.params.items()}
        x = torch.as_tensor(inputs)
        return ntkest.linearize(
            lambda p, x: case.function(xp, p, x), params, x, differentiable=True, check=False, batch_axis=0
        )

    check_value_and_gradient(backend, make, dtype)
