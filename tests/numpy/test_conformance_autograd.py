"""The NumPy adapter passes the conformance kit."""

import autograd.numpy as anp
import pytest

import ntkest
from ntkest.testing import check_backend


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_adapter_conforms(dtype):
    check_backend(
        lambda case: ntkest.linearize(lambda p, x: case.function(anp, p, x), case.params, case.inputs), dtype=dtype
    )
