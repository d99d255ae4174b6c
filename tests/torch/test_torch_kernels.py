"""Exact kernels of torch modules, against products of their explicit Jacobians."""

import pytest
import torch
from torch import nn

import ntkest
from tests.torch.test_torch_examples import CASES


def explicit(J):
    """J (N·O, P) in float64, example by example."""
    axis, count = J.examples
    order = torch.arange(J.outputs.numel()).reshape(J.outputs.shape).movedim(axis, 0).reshape(-1)
    rows = J.vjp(torch.eye(J.outputs.numel(), dtype=J.outputs.dtype))
    return torch.cat(rows, dim=1)[order].double(), J.outputs.numel() // count


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_kernels_of_every_layer(name, dtype, rtol):
    make, shape, *_ = CASES[name]
    torch.manual_seed(0)
    model = make().to(dtype)
    J = ntkest.linearize(model, torch.randn(shape, dtype=dtype) if shape else torch.randint(20, (6, 4)))
    A, size = explicit(J)
    wanted = A @ A.T
    peak = wanted.abs().max()
    full = ntkest.ntk(J)
    assert full.dtype == dtype
    torch.testing.assert_close(full.double(), wanted, rtol=0, atol=float(rtol * peak))
    blocks = wanted.reshape(-1, size, wanted.shape[0] // size, size)
    total = blocks.sum(dim=(1, 3)) / size
    torch.testing.assert_close(ntkest.pntk(J).double(), total, rtol=0, atol=float(rtol * size * peak))
    parts = ntkest.ntk(J, outputs="sum", by="layer")
    torch.testing.assert_close(sum(parts.values()).double(), size * total, rtol=0, atol=float(rtol * size**2 * peak))


def test_kernels_between_two_sets_of_examples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3)).double()
    x, y = torch.randn(5, 20).double(), torch.randn(7, 20).double()
    both = ntkest.ntk(ntkest.linearize(model, torch.cat([x, y])))
    across = ntkest.ntk(ntkest.linearize(model, x), ntkest.linearize(model, y))
    torch.testing.assert_close(across, both[:15, 15:])


def test_gradients_flow_through_a_kernel():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3)).double(), torch.randn(5, 20).double()
    weights = torch.randn(5, 5).double()

    def total(differentiable=True):
        return (ntkest.pntk(ntkest.linearize(model, x, differentiable=differentiable)) * weights).sum()

    weight = model[0].weight
    (slope,) = torch.autograd.grad(total(), weight)
    direction = torch.randn_like(weight)
    ends = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            weight += step * direction
        ends.append(total(False))
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, (slope * direction).sum(), rtol=1e-6, atol=1e-8)
