"""Compact forms of torch models, layer by layer, against Jacobians that autograd writes out row by row."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import ntkest
from tests.torch.cases import explicit
from tests.torch.kernel_cases import Function


def recomputed(x, w, v):
    return torch.tanh(checkpoint(lambda x: torch.tanh(x @ w), x, use_reentrant=False)) @ v


CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(30, 20), nn.ReLU(inplace=True), nn.Linear(20, 30)), (3, 30)),
    "without bias": (lambda: nn.Linear(30, 20, bias=False), (3, 30)),
    "on sequences": (lambda: nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 30)), (2, 3, 30)),
    "on a vector": (lambda: nn.Linear(30, 20), (30,)),
    "product": (lambda: Function(lambda x, w: torch.tanh(x @ w), (30, 20)), (3, 30)),
    "sum and product": (lambda: Function(lambda x, b, w: torch.addmm(b, x, w).sin(), (20,), (30, 20)), (3, 30)),
    "transposed": (lambda: Function(lambda x, w: torch.tanh(x @ w.T), (20, 30)), (3, 30)),
    "used twice": (lambda: Function(lambda x, w: torch.tanh(torch.tanh(x @ w) @ w), (30, 30)), (3, 30)),
    "both ways round": (
        lambda: Function(lambda x, w, v: (torch.tanh(x @ w) @ w.T).sin() @ v, (30, 30), (30, 90)),
        (3, 30),
    ),
    "used otherwise": (
        lambda: Function(lambda x, w, v: (x @ w).sin() @ w.T @ v + w.sum(), (30, 40), (30, 300)),
        (3, 30),
    ),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(9, 60, 3, stride=2, dilation=2, padding=1), nn.Tanh(), nn.Conv2d(60, 90, (2, 1))
        ),
        (2, 9, 7, 5),
    ),
    "convolution of one image": (lambda: nn.Conv2d(8, 12, 3), (8, 4, 4)),
    "convolution along a line": (lambda: nn.Conv1d(20, 20, 3, padding="same"), (1, 20, 4)),
    "normalised": (lambda: nn.Sequential(nn.Linear(30, 40), nn.LayerNorm(40), nn.Linear(40, 30)), (3, 30)),
    "attention": (lambda: nn.TransformerEncoderLayer(24, 2, 48, dropout=0.1, batch_first=True).eval(), (1, 3, 24)),
    "recurrent": (lambda: Function(lambda x, w, v: torch.tanh(torch.tanh(x @ w) @ v) @ v, (30, 40), (40, 40)), (3, 30)),
    "lstm": (lambda: nn.Sequential(nn.LSTM(20, 30, batch_first=True), Pick()), (1, 3, 20)),
    "with a large table beside": (
        lambda: Function(lambda x, w, t: (x @ w).sin() + t[torch.tensor([0, 2, 0])], (30, 40), (5, 40)),
        (3, 30),
    ),
}
NOT = {
    "grouped": (lambda: nn.Conv1d(20, 20, 3, groups=2), (1, 20, 4)),
    "transposed convolution": (lambda: nn.ConvTranspose1d(20, 20, 3), (1, 20, 2)),
    "recomputed": (lambda: Function(recomputed, (30, 40), (40, 30)), (3, 30)),
    "some rows": (lambda: Function(lambda x, w: torch.tanh(x @ w[:30]) @ w[30:], (60, 30)), (3, 30)),
    "many positions": (lambda: nn.Linear(8, 8), (20, 8)),
}


class Pick(nn.Module):
    def forward(self, found):
        return found[0]


def made(make, shape, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().to(dtype), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_of_blocks(case):
    module, x = made(*case)
    J = ntkest.linearize(module, x, batch_axis=None)
    small, rows = J.compact, explicit(module, (x,), None)
    assert small is not J
    assert 2 * sum(p.numel() for p in small.params) <= sum(p.numel() for p in J.params)
    images = small.vjp(torch.eye(J.outputs.numel(), dtype=torch.float64))
    for name, image in zip(small.param_names, images, strict=True):
        K = rows[name] @ rows[name].T
        torch.testing.assert_close(image @ image.T, K, rtol=1e-9, atol=1e-10 * float(K.abs().max()))
    torch.testing.assert_close(small.jvp(images), sum(a @ a.T for a in rows.values()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", NOT.values(), ids=NOT)
def test_others_are_left_alone(case):
    module, x = made(*case)
    J = ntkest.linearize(module, x, batch_axis=None)
    assert J.compact is J


def test_users_tensors_are_left_alone():
    module, x = made(*CASES["linear"])
    before = [t.clone() for t in (*module.parameters(), x)]
    J = ntkest.linearize(module, x)
    J.compact.vjp(torch.ones(2, J.outputs.numel(), dtype=torch.float64))
    for old, new in zip(before, (*module.parameters(), x), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
        assert new.grad is None
    with torch.no_grad():
        module[0].weight.mul_(2)
    with pytest.raises(ntkest.linearization.StaleLinearizationError):
        J.compact.vjp(torch.ones(2, J.outputs.numel(), dtype=torch.float64))


def test_differentiable_parameters_have_none():
    module, x = made(*CASES["linear"])
    J = ntkest.linearize(module, x, differentiable=True)
    assert J.compact is J


def test_halves_keep_their_precision():
    module, x = made(*CASES["linear"], dtype=torch.bfloat16)
    J = ntkest.linearize(module, x, batch_axis=None)
    small = J.compact
    assert small is not J
    assert {image.dtype for image in small.vjp(torch.ones(1, J.outputs.numel(), dtype=torch.bfloat16))} == {
        torch.bfloat16
    }
    double, wide = made(*CASES["linear"])
    K = ntkest.trace(ntkest.linearize(double, wide, batch_axis=None), method="exact")
    assert float(ntkest.trace(J, method="exact")) == pytest.approx(float(K), rel=0.05)
