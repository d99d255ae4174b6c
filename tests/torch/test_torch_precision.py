"""Models in bfloat16, float16 and float64, under autocast, and outputs of another precision than the parameters."""

import pytest
import torch
from torch import nn

import ntkest

MATCH = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def build(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)


def reference(x):
    """The Jacobian in float64."""
    J = ntkest.linearize(build().double(), x.double())
    return J.vjp(torch.eye(J.outputs.numel(), dtype=torch.float64))


def assert_near(J, wanted, relative):
    """Both maps of J against a float64 Jacobian, in the norm."""
    omega = torch.eye(J.outputs.numel(), dtype=J.outputs.dtype)
    tangents = tuple(torch.ones(2, p.numel(), dtype=p.dtype) for p in J.params)
    for found, block in zip(J.vjp(omega), wanted, strict=True):
        assert (found.double() - block).norm() <= relative * block.norm()
    image = sum(block.sum(1) for block in wanted)
    assert (J.jvp(tangents).double() - image).norm() <= relative * image.norm()


@pytest.mark.parametrize("dtype", MATCH)
def test_the_maps_keep_the_dtype_and_its_digits(dtype):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    J = ntkest.linearize(build(dtype), x.to(dtype))
    assert J.examples == (0, 5)
    assert J.vjp(torch.ones(2, 20, dtype=dtype))[0].dtype == dtype
    assert J.jvp(tuple(torch.ones(2, p.numel(), dtype=dtype) for p in J.params)).dtype == dtype
    assert_near(J, reference(x), MATCH[dtype])


def test_autocast_is_entered_again_and_only_there():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        J = ntkest.linearize(build(), x)
        copied = J.at(build())
        inside = J.vjp(torch.eye(20, dtype=torch.bfloat16))
    assert J.outputs.dtype == torch.bfloat16
    assert J.params[0].dtype == torch.float32
    assert J.vjp(torch.eye(20, dtype=torch.bfloat16))[0].dtype == torch.float32
    torch.testing.assert_close(J.vjp(torch.eye(20, dtype=torch.bfloat16)), inside, rtol=0, atol=0)
    assert_near(J, reference(x), MATCH[torch.bfloat16])
    assert_near(copied, reference(x), MATCH[torch.bfloat16])
    assert not torch.is_autocast_enabled("cpu")


def test_a_linearization_made_outside_autocast_stays_outside():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    J = ntkest.linearize(build(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_near(J, reference(x), MATCH[torch.float32])
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("inner", "outer"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_outputs_of_another_precision(inner, outer):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    J = ntkest.linearize(build(inner), x.to(inner), output=lambda y: y.to(outer))
    assert J.outputs.dtype == outer
    assert J.params[0].dtype == inner
    assert_near(J, reference(x), MATCH[torch.bfloat16])


def test_the_exponent_follows_the_scale():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    plain = ntkest.linearize(build(), x).exponent
    for shift in (-60, 60):
        scaled = ntkest.linearize(build(), x, output=lambda y, shift=shift: y * 2.0**shift)
        assert scaled.exponent == plain + shift
    assert ntkest.linearize(build(), x, check=False).exponent == 0
