"""With ``differentiable=True`` gradients of estimates flow to the parameters, and agree with finite differences."""

import pytest
import torch
from torch import nn

import ntkest
from ntkest.linearization import InvalidValueError

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(2, 3, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (5, 3)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)), (3, 1, 3, 3)),
    "gru": (Recurrent, (2, 3, 2)),
}


def trace(J, mode, chunk):
    """A fixed-probe estimate of ‖J‖² from one mode, through the map."""
    if mode == "vjp":
        probes = draw(3, J.outputs.numel(), seed=5)
        squares = J.map_vjp(lambda blocks: sum((b * b).sum(1) for b in blocks), probes, chunk=chunk)
    else:
        probes = tuple(draw(3, p.numel(), seed=6 + i) for i, p in enumerate(J.params))
        squares = J.map_jvp(lambda y: (y * y).sum(1), probes, chunk=chunk)
    return squares.mean()


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_an_estimate_agree_with_finite_differences(name, mode, chunk):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    module, x = build().double(), draw(*shape, seed=1)
    value = trace(ntkest.linearize(module, x, differentiable=True), mode, chunk)
    value.backward()
    step = 1e-6
    for parameter in module.parameters():
        direction = draw(*parameter.shape, seed=9)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
            ends.append(trace(ntkest.linearize(module, x, check=False), mode, None).item())
            with torch.no_grad():
                parameter.sub_(sign * step * direction)
        difference = (ends[0] - ends[1]) / (2 * step)
        # The last bias is added behind all that bends, so that J does not depend on it.
        slope = 0.0 if parameter.grad is None else (parameter.grad * direction).sum().item()
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_one_linearization_serves_several_backward_calls(mode):
    torch.manual_seed(0)
    module = MODELS["mlp"][0]().double()
    J = ntkest.linearize(module, draw(5, 3), differentiable=True)
    found = []
    for _ in range(2):
        module.zero_grad()
        (trace(J, mode, None) + J.outputs.square().sum() * 0).backward(retain_graph=True)
        found.append([p.grad.clone() for p in module.parameters()])
    torch.testing.assert_close(found[0], found[1])


def test_gradients_reach_what_the_parameters_were_made_from():
    scale = torch.tensor(2.0, dtype=F64, requires_grad=True)
    w, x = draw(3), draw(4, 3, seed=1)
    J = ntkest.linearize(lambda p, x: torch.tanh(x @ p["w"]), {"w": scale * w}, x, differentiable=True)
    (gradient,) = torch.autograd.grad(trace(J, "vjp", None), scale)
    step = 1e-6
    ends = [
        trace(ntkest.linearize(lambda p, x: torch.tanh(x @ p["w"]), {"w": s * w}, x), "vjp", None)
        for s in (2.0 + step, 2.0 - step)
    ]
    assert gradient.item() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).item(), rel=1e-6)


def test_without_differentiable_nothing_carries_a_graph():
    torch.manual_seed(0)
    J = ntkest.linearize(MODELS["mlp"][0]().double(), draw(5, 3))
    assert not J.outputs.requires_grad
    assert not any(p.requires_grad for p in J.params)
    assert not trace(J, "vjp", None).requires_grad
    assert not trace(J, "jvp", None).requires_grad


def test_a_copy_cannot_be_differentiable():
    with pytest.raises(InvalidValueError, match="choose one"):
        ntkest.linearize(nn.Linear(3, 2), torch.ones(2, 3), copy=True, differentiable=True)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_works_inside_functional_transforms(mode):
    tree, x = {"a": draw(3, 4), "b": draw(4, 2, seed=2)}, draw(5, 3, seed=1)

    def f(p, x):
        return torch.tanh(x @ p["a"]) @ p["b"]

    def loss(p):
        return trace(ntkest.linearize(f, p, x), mode, None)

    found = torch.func.grad(loss)(tree)
    live = {name: leaf.clone().requires_grad_() for name, leaf in tree.items()}
    wanted = torch.autograd.grad(
        trace(ntkest.linearize(f, live, x, differentiable=True), mode, None), list(live.values())
    )
    torch.testing.assert_close(list(found.values()), list(wanted))

    many = {name: torch.stack([leaf, 2 * leaf]) for name, leaf in tree.items()}
    values = torch.func.vmap(loss, randomness="same")(many)
    torch.testing.assert_close(values, torch.stack([loss(tree), loss({name: 2 * leaf for name, leaf in tree.items()})]))
