"""A linearization is a value: it works under any caller's modes, touches nothing, and notices what changed."""

import threading

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import ntkest
from ntkest.linearization import StaleLinearizationError
from tests.torch.cases import resnet


def mlp(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


def maps(J):
    """Both maps on fixed probes."""
    generator = torch.Generator().manual_seed(1)
    omega = torch.randn(3, J.outputs.numel(), generator=generator, dtype=J.outputs.dtype)
    v = tuple(torch.randn(3, p.numel(), generator=generator, dtype=p.dtype) for p in J.params)
    return J.vjp(omega), J.jvp(v)


@pytest.fixture
def x():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_below_a_caller_without_gradients(mode, x):
    module = mlp()
    wanted = maps(ntkest.linearize(module, x))
    with mode():
        found = maps(ntkest.linearize(module, x))
        found_of_own_input = maps(ntkest.linearize(module, x.clone()))
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found_of_own_input, wanted)


def test_a_model_made_in_inference_mode_works(x):
    with torch.inference_mode():
        module = mlp()
        J = ntkest.linearize(module, x)
    torch.testing.assert_close(maps(J), maps(ntkest.linearize(mlp(), x)))


@pytest.mark.parametrize("what", ["input", "buffer"])
def test_a_changed_input_or_buffer_is_noticed(what, x):
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double().eval()
    J = ntkest.linearize(module, x)
    kept = ntkest.linearize(module, x, copy=True)
    before = maps(kept)
    (x if what == "input" else module[1].running_mean).add_(1.0)
    with pytest.raises(StaleLinearizationError, match=what):
        maps(J)
    with pytest.raises(StaleLinearizationError, match=what):
        J.at(module.state_dict())
    torch.testing.assert_close(maps(kept), before)


def test_an_optimizer_step_is_noticed(x):
    module = mlp()
    J = ntkest.linearize(module, x)
    optimizer = torch.optim.Adam(module.parameters())
    module(x).sum().backward()
    maps(J)  # gradients alone change nothing
    optimizer.step()
    with pytest.raises(StaleLinearizationError):
        maps(J)


def test_switching_to_train_mode_is_noticed(x):
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).double().eval()
    J = ntkest.linearize(module, x)
    module.train()
    with pytest.raises(StaleLinearizationError, match="train mode now"):
        maps(J)
    module.eval()
    maps(J)


def test_replacing_the_data_of_a_parameter_does_not_reach_a_linearization(x):
    module = mlp()
    J = ntkest.linearize(module, x)
    before = maps(J)
    for parameter in module.parameters():
        parameter.data = torch.zeros_like(parameter)
    torch.testing.assert_close(maps(J), before)


def test_a_gradient_of_the_user_stays_as_it_is(x):
    module = mlp()
    module(x).sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    maps(ntkest.linearize(module, x))
    for gradient, parameter in zip(before, module.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_running_statistics_of_a_model_in_train_mode_stay():
    torch.manual_seed(0)
    module = resnet().double().train()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    J = ntkest.linearize(module, torch.randn(4, 3, 6, 6, dtype=torch.float64))
    maps(J)
    assert J.examples is None
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_change_nothing_beyond_rounding(chunk, x):
    J = ntkest.linearize(mlp(), x)
    generator = torch.Generator().manual_seed(1)
    omega = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    seen = []

    def squares(blocks):
        seen.append(blocks[0].shape[0])
        return sum((b * b).sum(1) for b in blocks)

    wanted = sum((b * b).sum(1) for b in J.vjp(omega))
    torch.testing.assert_close(J.map_vjp(squares, omega, chunk=chunk), wanted)
    assert seen == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[chunk]
    pulled = J.vjp(omega)
    images = J.map_jvp(lambda y: y, omega, expand=lambda part: J.vjp(part), chunk=chunk)
    torch.testing.assert_close(images, J.jvp(pulled))


def test_passes_in_threads_agree(x):
    J = ntkest.linearize(mlp(), x)
    wanted, found = maps(J), {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: maps(J)})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for result in found.values():
        torch.testing.assert_close(result, wanted)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x):
        return x * self.weight * torch.rand(3, dtype=torch.float64)


def test_without_checks_a_random_model_is_linearized_at_its_first_draw(x):
    state = torch.get_rng_state()
    J = ntkest.linearize(Noise(), x, check=False)
    draw = J.outputs / x
    torch.testing.assert_close(J.jvp((torch.ones(2, 3, dtype=torch.float64),))[1], (x * draw).reshape(-1))
    assert torch.equal(state, torch.get_rng_state())


def test_an_embedding_that_bounds_its_own_norm_is_left_alone():
    torch.manual_seed(0)
    module, tokens = nn.Embedding(6, 3, max_norm=0.5).double(), torch.tensor([[0, 1], [2, 0]])
    before = module.weight.detach().clone()
    J = ntkest.linearize(module, tokens)
    moved = J.at({"weight": before})
    assert torch.equal(module.weight, before)
    assert bool((J.outputs.norm(dim=-1) < 0.5 + 1e-6).all())
    counts = torch.tensor([2.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64).repeat_interleave(3)
    for here in (J, moved):
        torch.testing.assert_close(here.vjp(torch.ones(1, 12, dtype=torch.float64))[0][0], counts)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def hidden(self, x):
        return torch.tanh(self.first(x))

    def forward(self, x):
        return self.last(torch.utils.checkpoint.checkpoint(self.hidden, x, use_reentrant=False))


def test_what_a_checkpoint_recomputes_is_at_the_right_place(x):
    torch.manual_seed(0)
    module = Checkpointed().double()
    state = {name: 0.5 * p.detach() for name, p in module.named_parameters()}
    moved = ntkest.linearize(module, x).at(state)
    module.load_state_dict(state)
    plain = nn.Sequential(module.first, nn.Tanh(), module.last)
    torch.testing.assert_close(maps(moved), maps(ntkest.linearize(plain, x)))


class Cautious(nn.Module):
    """Decides by a value, which batching over probes forbids."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        y = self.layer(x)
        return y if bool(y.sum() > 1e9) else y * 2


def test_a_model_that_decides_by_values_falls_back_to_a_loop(x):
    module = Cautious().double()
    state = dict(module.layer.named_parameters())
    twice = ntkest.linearize(lambda p, x: 2 * torch.func.functional_call(module.layer, p, (x,)), state, x)
    torch.testing.assert_close(maps(ntkest.linearize(module, x)), maps(twice))


class Cube(torch.autograd.Function):
    """No jvp and no vmap rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class Cubed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return Cube.apply(self.layer(x))


def test_where_forward_mode_is_missing_two_reverse_passes_stand_in(x):
    module = Cubed().double()
    J = ntkest.linearize(module, x)
    state = dict(module.layer.named_parameters())
    wanted = maps(ntkest.linearize(lambda p, x: torch.func.functional_call(module.layer, p, (x,)) ** 3, state, x))
    assert J.passes_per_jvp == 2
    assert J.modes == {"jvp", "vjp"}
    torch.testing.assert_close(maps(J), wanted)
    assert J.at(module).passes_per_jvp == 2
