"""Gradients flow through every estimator and every quantity to live parameters, and agree with finite differences."""

import pytest
import torch
from torch import nn

import ntkest
from tests.torch.models import NETS, draw

METHODS = {
    "exact": 8,
    "reverse": 20,
    "forward": 20,
    "hutchinson": 20,
    "hutch++": 30,
    "hutch++jv": 30,
    "nystrom++": 16,
    "xnystrace": 11,
    "xtrace": 21,
    "xtrace-power": 31,
    "auto": 7,
}
"""Passes a kernel: fewer columns of Q than M, and too few for "auto" to be exact."""

X = draw(4, 3, seed=1)
TARGETS = draw(4, 2, seed=2)
CLASSES = torch.tensor([0, 1, 1, 0])


def mlp(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


class Recurrent(nn.Module):
    """Feedback over five steps, to the same outputs."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.RNNCell(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.cell(x)
        for _ in range(4):
            h = self.cell(x, h)
        return self.head(h)


def recurrent():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Recurrent().double()


QUANTITIES = {
    "trace": lambda J, L, **k: ntkest.trace(J, **k),
    "trace by layer": lambda J, L, **k: ntkest.trace(J, by="layer", **k).parts["0"],
    "norm": lambda J, L, **k: ntkest.frobenius_norm(J, **k),
    "norm by layer": lambda J, L, **k: ntkest.frobenius_norm(J, by="layer", **k).parts["2"],
    "rank": lambda J, L, **k: ntkest.effective_rank(J, **k),
    "rank centred": lambda J, L, **k: ntkest.effective_rank(J, centered="examples", **k),
    "targets": lambda J, L, **k: ntkest.alignment(J, TARGETS, **k),
    "labels": lambda J, L, **k: ntkest.alignment(J, CLASSES, centered=True, **k),
    "kernels": lambda J, L, **k: ntkest.alignment(J, L, **k),
    "kernels centred": lambda J, L, **k: ntkest.alignment(J, L, centered=True, **k),
}


def assert_slope(module, value, rel=1e-6):
    """The gradient of ``value()`` along a random direction against a central difference."""
    parameters = list(module.parameters())
    directions = [draw(*p.shape, seed=9 + i) for i, p in enumerate(parameters)]
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert slope != 0
    step, ends = 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(sign * step * d)
        ends.append(value().item())
    with torch.no_grad():
        for p, d in zip(parameters, directions, strict=True):
            p.add_(step * d)
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=rel, abs=1e-8)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("method", METHODS)
def test_values_and_error_bars(method, quantity):
    module, other = mlp(), recurrent()
    passes = METHODS[method] * (2 if "kernels" in quantity else 1) * (2 if "layer" in quantity else 1)
    if "layer" in quantity and method.startswith("x"):
        pytest.skip("no parts")

    def estimate():
        J, L = (ntkest.linearize(m, X, differentiable=True, check=False, batch_axis=0) for m in (module, other))
        return QUANTITIES[quantity](J, L, method=method, passes=None if method == "exact" else passes)

    assert_slope(module, lambda: estimate().value)
    if method != "exact":
        assert_slope(module, lambda: estimate().std_error, rel=1e-5)
    if "kernels" in quantity:
        assert_slope(other, lambda: estimate().value)


@pytest.mark.parametrize("name", ["convnet", "gru", "transformer"])
@pytest.mark.parametrize("method", ["reverse", "forward", "exact", "hutch++"])
def test_of_other_networks(name, method):
    module, x = NETS[name].make()
    passes = None if method == "exact" else 16

    def value():
        J = ntkest.linearize(module, x, differentiable=True)
        return ntkest.effective_rank(J, method=method, passes=passes).value

    assert_slope(module, value, rel=1e-5)


NORMED = {
    "layer norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)),
    "batch norm training": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).eval(),
    "instance norm": lambda: nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, affine=True)),
    "group norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4)),
    "rms norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4), nn.Tanh()),
}


@pytest.mark.parametrize("route", ["loop", "batch", "two reverse passes"])
@pytest.mark.parametrize("name", NORMED)
def test_of_jvps_through_normalisation(name, route):
    """Forward derivatives of torch's own kernels cannot be differentiated again: their gradients are wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = NORMED[name]().double()

    def value():
        J = ntkest.linearize(module, X, differentiable=True, check=False)
        J._route.doubles, J._route.batches = route == "two reverse passes", route == "batch"
        return ntkest.trace(J, method="forward", passes=8 * J.passes_per_jvp).value

    assert value().item() == pytest.approx(
        ntkest.trace(ntkest.linearize(module, X), method="forward", passes=8).value.item(), rel=1e-9
    )
    assert_slope(module, value, rel=1e-5)


def test_a_trace_penalty_with_new_probes_trains():
    module, x = mlp(), draw(16, 3, seed=4)
    y = torch.sin(x.sum(1, keepdim=True)).repeat(1, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    before = float(ntkest.trace(ntkest.linearize(module, x), method="exact"))
    losses = []
    for step in range(20):
        J = ntkest.linearize(module, x, differentiable=True, check=step == 0)
        probes = ntkest.draw_probes(J, 8, seed=step)
        loss = (J.outputs - y).square().mean() + 0.01 * ntkest.trace(J, probes=probes).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert float(ntkest.trace(ntkest.linearize(module, x), method="exact")) < 0.7 * before
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "auto"])
def test_inside_functional_transforms(method):
    """Not of "auto", which chooses anew where values, and single examples, cannot be looked at."""
    module = mlp()
    tree = {name: p.detach() for name, p in module.named_parameters()}
    passes = None if method == "exact" else METHODS[method]

    def value(p):
        J = ntkest.linearize(lambda p, x: torch.func.functional_call(module, p, (x,)), p, X)
        return ntkest.effective_rank(J, method=method, passes=passes).value

    J = ntkest.linearize(module, X, differentiable=True, check=False)
    plain = ntkest.effective_rank(J, method=method, passes=passes).value
    wanted = torch.autograd.grad(plain, list(module.parameters()), allow_unused=True)
    for found, gradient in zip(torch.func.grad(value)(tree).values(), wanted, strict=True):
        torch.testing.assert_close(found, torch.zeros_like(found) if gradient is None else gradient)
    scales = torch.tensor([1.0, 1.5], dtype=torch.float64)
    many = torch.func.vmap(lambda s: value({name: s * p for name, p in tree.items()}), randomness="same")(scales)
    one_by_one = [value({name: s * p for name, p in tree.items()}) for s in scales]
    torch.testing.assert_close(many, torch.stack(one_by_one))


@pytest.mark.parametrize("by", [None, "layer", "parameter"])
@pytest.mark.parametrize("method", ["nystrom++", "adaptive-hutch++"])
def test_gradients_with_more_columns_than_parameters(method, by):
    """There everything is exact, and so is the gradient."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, gradients = draw(30, 4).double(), []
    for keywords in ({"method": "exact"}, {"method": method, "passes": 900, "by": by}):
        J = ntkest.linearize(module, x, differentiable=True)
        value = ntkest.trace(J, **keywords).value + ntkest.frobenius_norm(J, **keywords).value
        gradients.append(torch.autograd.grad(value, list(module.parameters())[:3]))
    for exact, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "method", ["reverse", "hutch++", "hutch++jv", "nystrom++", "xnystrace", "xtrace", "xtrace-power"]
)
def test_of_an_alignment_with_a_kernel_that_stays(method):
    """What one kernel's parameters shape is pushed through the other, whose parameters are not differentiated."""
    torch.manual_seed(0)
    net, fixed = (nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double() for _ in range(2))
    x, direction = draw(5, 6), [torch.randn_like(p) for p in net.parameters()]
    start = [p.detach().clone() for p in net.parameters()]

    def aligned(h, differentiable):
        with torch.no_grad():
            for p, s, d in zip(net.parameters(), start, direction, strict=True):
                p.copy_(s + h * d)
        J = ntkest.linearize(net, x, differentiable=differentiable)
        return ntkest.alignment(J, ntkest.linearize(fixed, x), method=method, passes=80).value

    h = 1e-5
    slope = (float(aligned(h, False)) - float(aligned(-h, False))) / (2 * h)
    found = torch.autograd.grad(aligned(0.0, True), list(net.parameters()), allow_unused=True)
    along = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True) if g is not None)
    assert along == pytest.approx(slope, rel=1e-5)
    assert abs(slope) > 1e-3
    assert all(p.grad is None for p in fixed.parameters())


@pytest.mark.parametrize("method", ["exact", "reverse", "hutch++", "nystrom++", "xnystrace", "xtrace"])
def test_in_targets_and_over_batches_of_them(method):
    J, y, direction = ntkest.linearize(mlp(), X), TARGETS, draw(4, 2, seed=3)
    spent = {} if method == "exact" else {"passes": 40}

    def aligned(y):
        return ntkest.alignment(J, y, method=method, **spent).value

    h, live = 1e-6, y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(aligned(live), live)
    numeric = (aligned(y + h * direction) - aligned(y - h * direction)) / (2 * h)
    assert float((slope * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)
    several = torch.func.vmap(aligned)(torch.stack([y, direction]))
    torch.testing.assert_close(several, torch.stack([aligned(y), aligned(direction)]))
