"""Gradients of convolutions by convolutions in groups, against autograd, one example and one cotangent at a time."""

import math

import pytest
import torch
from ntkest_torch import assembly, products
from ntkest_torch.convolved import in_groups, pays
from ntkest_torch.layers import Convolution
from torch import nn
from torch.nn import functional

import ntkest
from tests.torch.cases import explicit

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

LAYERS = {
    # kernel, stride, padding (the last axis first), dilation, groups, channels in and out, size of the inputs
    "plain": ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 2, 3, (5, 4)),
    "strided": ((3, 2), (2, 1), (1, 1, 2, 2), (1, 3), 1, 3, 2, (8, 6)),
    "uneven": ((4,), (1,), (4, 5), (3,), 1, 2, 3, (12,)),
    "leftover": ((2,), (3,), (0, 0), (1,), 1, 2, 2, (10,)),
    "groups": ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2, 4, 6, (5, 5)),
    "depthwise": ((3,), (1,), (1, 1), (1,), 3, 3, 6, (7,)),
    "volume": ((2, 1, 3), (1, 2, 2), (1, 1, 0, 0, 1, 1), (1, 1, 1), 2, 2, 2, (3, 3, 4)),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def layer(request):
    kernel, stride, padding, dilation, groups, channels, out, size = request.param

    def function(x, weight):
        padded = functional.pad(x, padding)
        return CONVOLUTIONS[len(kernel)](padded, weight, None, stride, 0, dilation, groups)

    shape = (out, channels // groups, *kernel)
    places = tuple(function(torch.zeros(1, channels, *size), torch.zeros(shape)).shape[2:])
    return Convolution(kernel, stride, padding, dilation, groups, places), function, shape, (channels, *size)


@pytest.mark.parametrize(("count", "n", "m"), [(1, 1, 1), (1, 4, 1), (3, 2, 1), (2, 3, 2)])
def test_gradients_in_groups(layer, count, n, m):
    convolution, function, shape, size = layer
    torch.manual_seed(0)
    a = torch.randn(n, m, *size, dtype=torch.float64)
    b = torch.randn(count, n, m, shape[0], *convolution.places, dtype=torch.float64)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = in_groups(convolution, a, b)
    assert found.shape == (count, n, math.prod(shape))
    for i in range(count):
        for j in range(n):
            (wanted,) = torch.autograd.grad(function(a[j], weight), weight, b[i, j])
            torch.testing.assert_close(found[i, j], wanted.flatten(), rtol=1e-12, atol=1e-12)


def test_gradients_in_groups_are_differentiable(layer):
    convolution, _, shape, size = layer
    torch.manual_seed(1)
    a = torch.randn(2, *size, dtype=torch.float64, requires_grad=True)
    b = torch.randn(1, 2, shape[0], *convolution.places, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: in_groups(convolution, a, b), (a, b))


def wide():
    """A network whose second layer is wide, and has fewer weights than its inputs and outputs have numbers."""
    torch.manual_seed(2)
    layers = [nn.Conv2d(2, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 18, 3, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 3)), torch.randn(4, 2, 16, 16)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("outputs", ["full", "sum", "signs:2"])
def test_kernels_of_wide_convolutions(monkeypatch, outputs):
    module, x = wide()
    J = ntkest.linearize(module, x)
    monkeypatch.setattr(products, "wider", lambda: True)
    calls = []
    monkeypatch.setattr(assembly, "in_groups", lambda *args: calls.append(args) or in_groups(*args))
    found = ntkest.ntk(J, outputs=outputs)
    assert {call[0].kernel for call in calls} == {(3, 3)}
    assert {call[1].shape[-3] for call in calls} == {16}  # the thin layer goes another way
    wanted = ntkest.ntk(ntkest.linearize(module.double(), x.double()), outputs=outputs)
    assert torch.linalg.norm(found.double() - wanted) <= 1e-5 * torch.linalg.norm(wanted)
    if outputs == "full":
        K = sum(rows @ rows.T for rows in explicit(module, (x.double(),)).values())
        torch.testing.assert_close(wanted, K, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wider", [True, False])
def test_what_is_left_to_products(monkeypatch, wider):
    monkeypatch.setattr(products, "wider", lambda: wider)
    plain = Convolution((3,), (1,), (1, 1), (1,), 1, (8,))
    a, b = torch.zeros(2, 32, 8), torch.zeros(1, 2, 16, 8)
    assert pays(plain, a, b) == (wider and torch._C._get_mkldnn_enabled())
    assert not pays(plain, a.double(), b.double())
    assert not pays(plain, a[:, :3], b)
    assert not pays(plain, a, b[:, :, :10])
    assert not pays(Convolution((3,), (1,), (1, 1), (1,), 4, (8,)), a, b)
    assert not pays(plain, a.to("meta"), b.to("meta"))


def test_wide_transposed_convolutions_go_their_own_way():
    torch.manual_seed(3)
    module = nn.Sequential(nn.ConvTranspose1d(16, 18, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18 * 42, 2))
    x = torch.randn(3, 16, 40)
    found = ntkest.ntk(ntkest.linearize(module, x))
    K = sum(rows @ rows.T for rows in explicit(module.double(), (x.double(),)).values())
    assert torch.linalg.norm(found.double() - K) <= 1e-5 * torch.linalg.norm(K)
