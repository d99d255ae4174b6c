"""Partial traces in torch: gradients against finite differences, half precision, and no reading of the device."""

import pytest
import torch

import ntkest
from ntkest.partial.choice import METHODS
from tests.torch.models import NETS, draw
from tests.torch.test_torch_estimator_gradients import X, mlp
from tests.torch.test_torch_host_copies import counted

PASSES = {"exact": 8, "forward": 20, "reverse": 20, "hutchinson": 20, "nystrom++": 12, "auto": 7}


def loss(net, over, **keywords):
    J = ntkest.linearize(net, X, differentiable=True, check=False)
    weights = draw(4, seed=9) if over == 0 else draw(4, 2, seed=9)
    return (ntkest.partial_trace(J, over, **keywords).value * weights).sum()


@pytest.mark.parametrize("over", [0, (0, 1)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_agree_with_finite_differences(method, over):
    net, keywords = mlp(), {"method": method, "passes": PASSES[method], "seed": 1}
    loss(net, over, **keywords).backward()
    direction = [draw(*p.shape, seed=20 + i) for i, p in enumerate(net.parameters())]
    pairs = zip(net.parameters(), direction, strict=True)
    along = sum((p.grad * d).sum() for p, d in pairs if p.grad is not None)  # K does not depend on the last bias
    values = []
    for step in (1e-5, -1e-5):
        moved = mlp()
        with torch.no_grad():
            for p, d in zip(moved.parameters(), direction, strict=True):
                p += step * d
        values.append(loss(moved, over, **keywords).detach())
    assert float(along) == pytest.approx(float((values[0] - values[1]) / 2e-5), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_errors_have_finite_gradients_where_entries_are_zero(method):
    net = mlp()
    J = ntkest.linearize(net, X, output=lambda y: y * torch.tensor([1.0, 0.0]).double(), differentiable=True)
    found = ntkest.partial_trace(J, 1, method=method, passes=PASSES[method])
    (found.value.sum() + found.std_error.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_cost_reads_only_whether_the_sum_is_finite(method, monkeypatch):
    J = ntkest.linearize(*NETS["mlp"].make())
    with counted(monkeypatch) as seen:
        ntkest.partial_trace(J, 0, method=method, by="layer", passes=None if method == "exact" else 40)
    assert set(seen) == {"_check_finite"}
    assert len(seen) == 2


@pytest.mark.parametrize("method", METHODS)
def test_everything_stays_on_a_device_without_numbers(method):
    module, x = NETS["mlp"].make()
    J = ntkest.linearize(module.to("meta"), x.to("meta"), check=False, batch_axis=0)
    found = ntkest.partial_trace(J, "example", method=method, by="layer", centered=True, passes=40)
    for part in (found, *found.parts.values()):
        assert part.value.device.type == part.std_error.device.type == part.total.value.device.type == "meta"
        assert tuple(part.value.shape) == (4,)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_gives_the_numbers_of_float64_to_its_digits(method):
    net = mlp()
    exact = ntkest.partial_trace(ntkest.linearize(net, X), 0, method="exact").value
    J = ntkest.linearize(net.to(torch.bfloat16), X.to(torch.bfloat16))
    found = ntkest.partial_trace(J, 0, method=method, passes=400)
    assert found.value.dtype == torch.float32
    low, high = (end.double() for end in found.interval(0.9999))
    assert ((low - 0.03 * exact <= exact) & (exact <= high + 0.03 * exact)).all()


def test_time_steps_of_a_recurrent_net_add_up():
    gru = torch.nn.GRU(3, 4, batch_first=True).double()
    J = ntkest.linearize(gru, draw(5, 6, 3), output=0)
    axes = ("example", "time", "unit")
    time = ntkest.partial_trace(J, "time", axes=axes, method="exact")
    both = ntkest.partial_trace(J, ("time", "unit"), axes=axes, method="exact")
    torch.testing.assert_close(both.value.sum(1), time.value)
    assert float(time.total) == pytest.approx(float(ntkest.trace(J, method="exact")))
