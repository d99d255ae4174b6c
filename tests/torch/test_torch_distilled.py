"""New inputs for modules with convolutions and batch norms, and what the adapter sees on the way through them."""

import numpy as np
import pytest
import torch
from ntkest_torch import backend
from torch import nn

from ntkest.distilled.points.exact import gradients
from ntkest.distilled.points.matching import Matching, Wanted, image_axes, moments, total_variation
from ntkest.distilled.points.objectives import Residual
from ntkest.distilled.points.problem import posed
from ntkest.distilled.points.targets import Targets
from ntkest.distilled.points.tuning import Tuned
from ntkest.distilled.points.views import looked, view_of
from ntkest.distilled.points.wasserstein import Wasserstein


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.hidden, self.head = nn.Linear(3 * 4 * 4, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = torch.tanh(self.norm(self.conv(x))).flatten(1)
        return self.head(torch.tanh(self.hidden(h)))


def made(count=12):
    torch.manual_seed(0)
    net = Net().double().eval()
    net.norm.running_mean.normal_()
    labels = torch.arange(count) % 2
    return net, torch.randn(count, 1, 6, 6, dtype=torch.float64) + labels[:, None, None, None], labels


def test_hidden_is_what_the_last_dense_layer_is_given_and_norms_show_what_they_are():
    net, x, _ = made()
    hidden, normalised = backend.activations(net)(x)
    given = net.conv(x)
    torch.testing.assert_close(hidden, torch.tanh(net.hidden(torch.tanh(net.norm(given)).flatten(1))))
    assert len(normalised) == 1
    torch.testing.assert_close(normalised[0], given)


@pytest.mark.parametrize("training", [False, True])
def test_looking_changes_nothing_of_the_module(training):
    net, x, _ = made()
    net.train(training)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    backend.activations(net)(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training is training
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_hooks_are_gone_after_an_error():
    net, _, _ = made()
    with pytest.raises(RuntimeError):
        backend.activations(net)(torch.ones(2, 7, dtype=torch.float64))
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_a_graph_is_made_only_for_inputs_that_want_one():
    net, x, _ = made()
    assert not backend.activations(net)(x)[0].requires_grad
    assert backend.activations(net)(x.requires_grad_())[0].requires_grad


def test_a_function_and_a_module_without_dense_layers_have_no_hidden_representation():
    assert backend.activations(torch.tanh) is None
    assert backend.activations(nn.Conv2d(1, 1, 3))(torch.ones(2, 1, 4, 4)) == (None, ())


def test_moments_are_those_of_each_class_over_examples_and_positions():
    net, x, labels = made()
    problem = posed(net, x, labels=labels, count=2)
    view, notes = view_of(problem, None, True)
    assert notes == ("features are what the last dense layer of the model is given",)
    seen = looked(problem, view)
    given = net.conv(x).detach()
    for label in (0, 1):
        own = given[labels == label].movedim(1, 0).flatten(1)
        torch.testing.assert_close(seen.moments[0][0][label], own.mean(dim=1))
        torch.testing.assert_close(seen.moments[0][1][label], own.var(dim=1, correction=0))
    order = torch.argsort(labels, stable=True)
    import array_api_compat.torch as xp

    for found, wanted in zip(moments(xp, given[order], 2), seen.moments[0], strict=True):
        torch.testing.assert_close(found, wanted)


def test_total_variation_adds_the_mean_differences_of_neighbours():
    import array_api_compat.torch as xp

    x = made()[1]
    wanted = (x[:, :, 1:] - x[:, :, :-1]).abs().mean() + (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().mean()
    torch.testing.assert_close(total_variation(xp, x, (2, 3)), wanted)
    assert image_axes((5, 3, 8, 8)) == (2, 3)
    assert image_axes((5, 8, 8, 3)) == (1, 2)
    assert image_axes((5, 64)) is None


def test_the_gradient_of_the_matching_loss_is_that_of_differences():
    net, x, labels = made()
    problem = posed(net, x, labels=labels, count=2)
    view, _ = view_of(problem, None, True)
    seen = looked(problem, view)
    start = x[[0, 2, 1, 3]] + 0.01
    wanted = Wanted(seen.features[[4, 6, 5, 7]], torch.tensor(0.7, dtype=torch.float64), seen.moments)
    matching = Matching(view, norms=0.3, variation=0.2, axes=(2, 3))
    _, (gradient,) = backend.value_and_gradient(matching)((start,), wanted)
    direction = torch.randn_like(start)
    ends = [matching((start + s * 1e-6 * direction,), wanted) for s in (1, -1)]
    slope = (ends[0] - ends[1]).item() / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("part", ["norms", "variation"])
def test_each_part_of_the_loss_pulls_its_own_way(part):
    net, x, labels = made(24)

    def left(**settings):
        problem = posed(net, x, labels=labels, count=2)
        points = Wasserstein(steps=60, **{"norms": 0.0, "variation": 0.0, **settings})(problem)
        if part == "variation":
            return float((points.inputs[:, :, 1:] - points.inputs[:, :, :-1]).abs().mean())
        view, _ = view_of(problem, None, True)
        seen = looked(problem, view).moments[0]
        import array_api_compat.torch as xp

        own = moments(xp, view(points.inputs)[1][0], 2)
        return float(sum(((a - b) ** 2).sum() for a, b in zip(own, seen, strict=True)))

    assert left(**{part: 1.0}) < 0.7 * left()


def test_gradients_of_the_residual_go_through_convolutions_and_norms():
    net, x, labels = made()
    problem = posed(net, x, labels=labels, count=2)
    seen = Targets(problem, np.arange(4, 12), 8, 10**9).seen(0)

    def value(arrays):
        J = problem.linearize(arrays[0], check=False, differentiable=True)
        return Residual(1e-3)(J, gradients(J), J.outputs, seen)

    start = x[:4]
    _, (gradient,) = backend.value_and_gradient(value)((start,))
    direction = torch.randn_like(start)
    ends = [value((start + s * 1e-5 * direction,)).item() for s in (1, -1)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_images_are_tuned_through_a_module():
    net, x, labels = made(24)
    points = Tuned(steps=20, start="uniform", rate=0.1)(posed(net, x, labels=labels, count=2))
    assert tuple(points.inputs.shape) == (4, 1, 6, 6)
    assert not points.inputs.requires_grad
    assert min(points.history) < 0.95 * points.history[0]


def test_wasserstein_inputs_of_a_module_match_its_hidden_representation():
    net, x, labels = made(24)
    problem = posed(net, x, labels=labels, count=2)
    points = Wasserstein(steps=150, norms=0.0, variation=0.0)(problem)
    assert points.notes == ("features are what the last dense layer of the model is given",)
    assert points.history[-1] < 0.02 * points.history[0]
    np.testing.assert_allclose(points.weights.reshape(2, 2).sum(axis=1), 1.0)
