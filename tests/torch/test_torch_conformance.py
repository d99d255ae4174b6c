"""The torch adapter passes the conformance kit."""

import array_api_compat.torch as xp
import pytest
import torch

import ntkest
from ntkest.testing import check_backend


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_adapter_conforms(dtype):
    def make(case):
        params = {name: torch.tensor(p) for name, p in case.params.items()}
        return ntkest.linearize(lambda p, x: case.function(xp, p, x), params, torch.tensor(case.inputs))

    check_backend(make, dtype=dtype)
