"""JVPs through a kept graph of Jᵀu: when they go that way, and that they are the same."""

import pytest
import torch
from torch import nn

import ntkest
from tests.torch.cases import explicit


class Doubled(torch.autograd.Function):
    """Twice x, whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent):
        return 2 * cotangent

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent


class Custom(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


def dense(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 5), *layers, nn.Linear(5, 3)).double()
        return module, torch.randn(6, 4, dtype=torch.float64)


def through_graph(J):
    return J._forward._linear is not None


def assert_right(J, module, x):
    v = tuple(torch.randn(3, p.numel(), dtype=torch.float64) for p in J.params)
    rows = explicit(module, (x,), None)
    wanted = sum(block @ rows[name].T for name, block in zip(J.param_names, v, strict=True))
    torch.testing.assert_close(J.jvp(v), wanted)
    torch.testing.assert_close(J.jvp(tuple(b[:1] for b in v)), wanted[:1])


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.ReLU(), nn.GELU(), nn.LayerNorm(5), nn.Softmax(1)], ids=repr)
def test_dense_models_go_that_way(layer):
    module, x = dense(layer)
    J = ntkest.linearize(module, x)
    assert_right(J, module, x)
    assert through_graph(J)
    assert J.passes_per_jvp == 1
    assert not J.jvp(tuple(torch.ones(2, p.numel(), dtype=torch.float64) for p in J.params)).requires_grad


def test_attention_goes_that_way():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
        x = torch.randn(2, 3, 8, dtype=torch.float64)
    J = ntkest.linearize(module, x)
    assert_right(J, module, x)
    assert through_graph(J)


def test_custom_functions_and_convolutions_do_not():
    module, x = dense(Custom())
    J = ntkest.linearize(module, x)
    assert_right(J, module, x)
    assert not through_graph(J)
    module = nn.Conv1d(2, 3, 2).double()
    J = ntkest.linearize(module, torch.randn(2, 2, 4, dtype=torch.float64))
    assert not through_graph(J)


def test_long_graphs_do_not():
    module, x = dense(*[nn.Tanh() for _ in range(600)])
    J = ntkest.linearize(module, x)
    assert_right(J, module, x)
    assert not through_graph(J)


def test_differentiable_parameters_do_not():
    module, x = dense(nn.Tanh())
    J = ntkest.linearize(module, x, differentiable=True)
    image = J.jvp(tuple(torch.ones(1, p.numel(), dtype=torch.float64) for p in J.params))
    assert image.requires_grad
    assert not through_graph(J)


def test_where_it_fails_forward_mode_takes_over(monkeypatch):
    def fail(self, tangents):
        raise RuntimeError("derivative for aten::something is not implemented")

    monkeypatch.setattr("ntkest_torch.linear.LinearGraph.passes", fail)
    module, x = dense(nn.Tanh())
    J = ntkest.linearize(module, x)
    assert_right(J, module, x)
    assert J.passes_per_jvp == 1
