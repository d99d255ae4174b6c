"""Estimates touch nothing of the user's, notice what changed, and do not depend on batches or chunks."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ntkest
from ntkest.linearization import StaleLinearizationError
from tests.torch.cases import resnet
from tests.torch.models import NETS, draw

METHODS = ("exact", "reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "adaptive-hutch++", "auto")
QUANTITIES = (ntkest.trace, ntkest.frobenius_norm, ntkest.effective_rank)


def passes_of(method):
    return {} if method == "exact" else {"passes": 40}


def batch_normed(train):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = resnet().double().train(train)
    module[4].eval()  # flags of submodules differ from that of the whole
    return module, draw(2, 3, 4, 4)


def state(module):
    """Everything that a call could change, by name."""
    found = {f"tensor {name}": t.detach().clone() for name, t in module.state_dict().items()}
    found |= {f"gradient {name}": p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    found |= {f"versions {name}": p._version for name, p in module.named_parameters()}
    found |= {f"requires {name}": p.requires_grad for name, p in module.named_parameters()}
    found |= {f"training {name}": part.training for name, part in module.named_modules()}
    found["hooks"] = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    found["random"] = torch.get_rng_state()
    found["modes"] = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    found["kernels"] = (
        torch.backends.mkldnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
    )
    return found


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if torch.is_tensor(value) else value == after[name]
        assert same, name


@pytest.mark.parametrize("live", [False, True], ids=["plain", "differentiable"])
@pytest.mark.parametrize("what", ["batch norm in train mode", "gru", "transformer"])
def test_calls_leave_everything_as_it_was(what, live):
    module, x = batch_normed("train" in what) if "batch" in what else NETS[what].make()
    next(module.parameters()).requires_grad_(False)
    outputs = module(x)
    outputs.sum().backward()
    before, targets = state(module), draw(*outputs.shape, seed=1)
    J = ntkest.linearize(module, x, differentiable=live)
    other = J.at({name: 0.9 * p.detach() for name, p in module.named_parameters()})
    for method in METHODS:
        passes = None if method == "exact" else 21
        for quantity in QUANTITIES:
            quantity(J, method=method, passes=passes).interval()
        str(ntkest.summary(J, targets, method=method, passes=passes).to_dict())
        ntkest.alignment(J, other, method=method, passes=passes and 2 * passes)
    ntkest.trace(J, rtol=0.3)
    ntkest.trace(ntkest.linearize_batches(module, [x, x], batch_axis=0, check=False), method="exact")
    with torch.no_grad():
        ntkest.trace(ntkest.linearize(module, x), passes=8)
    assert_same(before, state(module))


def test_a_layer_registered_twice_keeps_its_own_parameters():
    layer = nn.Linear(3, 3)
    module, own = nn.Sequential(layer, nn.Tanh(), layer), list(layer.parameters())
    J = ntkest.linearize(module, torch.randn(4, 3))
    ntkest.trace(J, passes=8)
    ntkest.ntk(J)
    assert all(p is mine for p, mine in zip(layer.parameters(), own, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_stale_linearization_raises_in_every_method(method):
    module, x = NETS["mlp"].make()
    J, kept = ntkest.linearize(module, x), ntkest.linearize(module, x, copy=True)
    before = [float(quantity(kept, method=method, **passes_of(method))) for quantity in QUANTITIES]
    torch.optim.SGD(module.parameters(), lr=0.1).step(lambda: module(x).square().sum().backward())
    for quantity, value in zip(QUANTITIES, before, strict=True):
        with pytest.raises(StaleLinearizationError):
            quantity(J, method=method, **passes_of(method))
        assert float(quantity(kept, method=method, **passes_of(method))) == value


def test_checkpoints_of_a_training_run_equal_fresh_linearizations():
    module, x = NETS["mlp"].make()
    start = ntkest.linearize(module, x, copy=True)
    optimizer, saved, kept = torch.optim.Adam(module.parameters(), lr=0.05), [], []
    for _ in range(5):
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()
        saved.append(copy.deepcopy(module.state_dict()))
        kept.append(ntkest.linearize(module, x, copy=True))
    for checkpoint, then in zip(saved, kept, strict=True):
        fresh_module, _ = NETS["mlp"].make(seed=9)
        fresh_module.load_state_dict(checkpoint)
        fresh = ntkest.linearize(fresh_module, x)
        for J in (start.at(checkpoint), then):
            for method in ("exact", "reverse", "forward"):
                for name, estimate in ntkest.summary(fresh, method=method, **passes_of(method)).items():
                    again = ntkest.summary(J, method=method, **passes_of(method))[name]
                    assert float(again) == pytest.approx(float(estimate), rel=1e-12)
            aligned = float(ntkest.alignment(start, J, method="exact"))
            assert aligned == pytest.approx(float(ntkest.alignment(start, fresh, method="exact")), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_data_loader_equals_the_concatenated_batch(method):
    module, _ = NETS["gru"].make()
    x, y = draw(7, 4, 3, seed=2), draw(7, 4, 4, seed=3)
    loader = DataLoader(TensorDataset(x, y), batch_size=3)
    streamed = ntkest.linearize_batches(module, loader, inputs=0)
    whole = ntkest.linearize(module, x)
    assert streamed.examples == whole.examples == (0, 7)
    keywords = {"method": method, "by": "layer", "centered": "examples", **passes_of(method)}
    wanted = ntkest.summary(whole, y, **keywords)
    for name, estimate in ntkest.summary(streamed, y, **keywords).items():
        for (_, ours), (_, reference) in zip(estimate.walk(), wanted[name].walk(), strict=True):
            assert float(ours) == pytest.approx(float(reference), rel=1e-9), name
            assert float(ours.std_error) == pytest.approx(float(reference.std_error), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
@pytest.mark.parametrize("method", METHODS)
def test_chunks_change_nothing_beyond_rounding(method, chunk):
    module, x = NETS["transformer"].make()
    J, targets = ntkest.linearize(module, x), draw(*NETS["transformer"].shape)
    wanted = ntkest.summary(J, targets, method=method, by="layer", **passes_of(method))
    found = ntkest.summary(J, targets, method=method, by="layer", chunk=chunk, **passes_of(method))
    for name, estimate in found.items():
        assert estimate.passes == wanted[name].passes
        for (_, ours), (_, reference) in zip(estimate.walk(), wanted[name].walk(), strict=True):
            assert float(ours) == pytest.approx(float(reference), rel=1e-9), name
