"""`from_jacobian` with torch tensors: live gradients and low precision."""

import numpy as np
import pytest
import torch

import ntkest


def test_gradients_flow_through_an_explicit_jacobian():
    A = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    omega = torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def squared_norm(a):
        (pulled,) = ntkest.from_jacobian(a).vjp(omega)
        return (pulled * pulled).sum()

    assert torch.autograd.gradcheck(squared_norm, (A,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_kept_by_the_maps(dtype):
    A = torch.arange(6.0).reshape(2, 3).to(dtype)
    J = ntkest.from_jacobian(A)
    image, (pulled,) = J.jvp((torch.eye(3, dtype=dtype),)), J.vjp(torch.eye(2, dtype=dtype))
    assert image.dtype == pulled.dtype == dtype
    np.testing.assert_array_equal(image.float().numpy(), A.T.float().numpy())
    np.testing.assert_array_equal(pulled.float().numpy(), A.float().numpy())
