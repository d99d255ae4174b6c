"""Gradients of single examples in torch: layers of every kind, together or one by one, in factors or not."""

import pytest
import torch
from torch import nn

import ntkest
from ntkest.linearization import StaleLinearizationError, identity, unfactored
from ntkest.tangents import SquareNorms


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 4)

    def forward(self, x):
        return self.cell(x)[0]


class Embedded(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8, sparse=sparse), nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


class UsedTwice(nn.Module):
    """A dense layer whose weight also appears transposed, outside of any dense layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 20)

    def forward(self, x):
        return torch.tanh(self.layer(x)) @ self.layer.weight


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(20, 30))

    def forward(self, x):
        return torch.tanh(x @ self.weight)


def tied():
    model = nn.Sequential(nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 30))
    model[2].weight = model[0].weight
    return model


CASES = {
    # model, input, axis of examples, whether examples go together, parameters in factors
    "dense": (
        lambda: nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 9)),
        (5, 20),
        0,
        True,
        {"0.weight", "2.weight"},
    ),
    "sequence": (lambda: nn.Sequential(nn.Linear(40, 30), nn.GELU()), (5, 2, 40), 0, True, {"0.weight"}),
    "long sequence": (lambda: nn.Linear(4, 3), (5, 9, 4), 0, True, set()),
    "tied": (tied, (5, 30), 0, True, {"0.weight"}),
    "transposed too": (lambda: nn.Sequential(UsedTwice()), (5, 20), 0, True, {"0.layer.weight"}),
    "matrix product": (Plain, (5, 20), 0, True, {"weight"}),
    "layer norm": (lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (6, 5), 0, True, None),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)).eval(), (6, 5), 0, True, None),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten()), (4, 2, 6, 6), 0, True, set()),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval(),
        (4, 3, 8),
        0,
        True,
        None,
    ),
    "rnn": (lambda: Recurrent(nn.RNN), (6, 5, 3), 1, True, set()),
    "gru": (lambda: Recurrent(nn.GRU), (6, 5, 3), 1, True, set()),
    "lstm": (lambda: Recurrent(nn.LSTM), (6, 5, 3), 1, True, set()),
    "embedding": (lambda: Embedded(False), None, 0, True, None),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_cotangents_on_one_example(name):
    make, shape, axis, together, factored = CASES[name]
    torch.manual_seed(0)
    model = make()
    J = ntkest.linearize(model, torch.randn(shape) if shape else torch.randint(20, (6, 4)))
    assert J.examples is not None
    assert J.examples[0] == axis
    omega = torch.randn(3, J.outputs.numel())
    for chunk in (None, 1, 4):
        images = J.map_example_vjp(identity, omega, chunk=chunk)
        rows = [unfactored(J.xp, image) for image in images]
        for n in range(J.examples[1]):
            mask = torch.zeros_like(J.outputs)
            mask.select(axis, n).fill_(1.0)
            for row, wanted in zip(rows, J.vjp(omega * mask.reshape(-1)), strict=True):
                torch.testing.assert_close(row[:, n], wanted, rtol=1e-4, atol=1e-4)
        assert J._examples().batches == together
        if factored is not None:
            found = {n for n, image in zip(J.param_names, images, strict=True) if isinstance(image, tuple)}
            if name != "transposed too":  # its other use may be a dense layer too, or may not
                assert found == factored


def test_a_weight_with_another_use_is_never_in_factors():
    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 20)

        def forward(self, x):
            return self.layer(x) + torch.sum(self.layer.weight**2)

    J = ntkest.linearize(Penalised(), torch.randn(5, 20))
    images = J.map_example_vjp(identity, torch.randn(2, 100))
    assert not any(isinstance(image, tuple) for image in images)


def test_gradients_flow_through_estimates_by_example():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3)).double(), torch.randn(5, 20).double()

    def exact():
        rows = torch.autograd.functional.jacobian(
            lambda *p: torch.func.functional_call(
                model, dict(zip(dict(model.named_parameters()), p, strict=True)), (x,)
            ),
            tuple(model.parameters()),
            create_graph=True,
        )
        return sum((r**2).sum() for r in rows)

    J = ntkest.linearize(model, x, differentiable=True)
    value = ntkest.trace(J, method="reverse-by-example", passes=9).value
    wanted = exact()
    torch.testing.assert_close(value, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(value, list(model.parameters())[:3]),
        torch.autograd.grad(wanted, list(model.parameters())[:3]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_sampled_norms_have_gradients_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double(), torch.randn(5, 6).double()

    def norm(differentiable=True):
        J = ntkest.linearize(model, x, differentiable=differentiable)
        return ntkest.frobenius_norm(J, method="reverse-by-example", passes=6).value

    weight = model[0].weight
    (slope,) = torch.autograd.grad(norm(), weight)
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-5 * direction
        above = norm(False)
        weight -= 2e-5 * direction
        below = norm(False)
        weight += 1e-5 * direction
    torch.testing.assert_close((above - below) / 2e-5, (slope * direction).sum(), rtol=1e-6, atol=1e-8)


def test_at_and_stale_parameters():
    torch.manual_seed(0)
    model, other, x = nn.Linear(20, 30), nn.Linear(20, 30), torch.randn(5, 20)
    J = ntkest.linearize(nn.Sequential(model, nn.Tanh()), x)
    there = J.at(nn.Sequential(other, nn.Tanh()))
    omega = torch.randn(2, 150)
    wanted = ntkest.linearize(nn.Sequential(other, nn.Tanh()), x).vjp(omega)
    for image, total in zip(there.map_example_vjp(identity, omega), wanted, strict=True):
        torch.testing.assert_close(unfactored(J.xp, image).sum(1), total, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.weight.add_(1.0)
    with pytest.raises(StaleLinearizationError):
        J.map_example_vjp(identity, omega)


def test_inside_a_transform_of_torch():
    torch.manual_seed(0)
    weight, x = torch.randn(20, 30).double(), torch.randn(5, 20).double()

    def value(weight):
        J = ntkest.linearize(lambda p, x: torch.tanh(x @ p), weight, x, batch_axis=0)
        return torch.sum(J.map_example_vjp(SquareNorms(J.xp, (0,), 1), torch.ones(1, 150).double()))

    slope = torch.func.grad(value)(weight)
    direction = torch.randn_like(weight)
    difference = (value(weight + 1e-6 * direction) - value(weight - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-6, atol=1e-6)


def test_autocast_is_entered_again():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 9)), torch.randn(5, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        J = ntkest.linearize(model, x)
    omega = torch.randn(2, 45, dtype=J.outputs.dtype)
    for image, total in zip(J.map_example_vjp(identity, omega), J.vjp(omega), strict=True):
        rows = unfactored(J.xp, image)
        torch.testing.assert_close(rows.sum(1), total, rtol=0.05, atol=0.05 * float(total.abs().max()))
