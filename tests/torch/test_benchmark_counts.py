"""The floating-point operations that the benchmark counts by formula are those that torch counts by watching."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import CASES
from benchmarks.models_torch import MODELS


@pytest.mark.parametrize("name", ["mlp", "convnet", "gru"])
def test_the_benchmark_counts_the_products_of_a_reverse_pass_as_torch_does(name):
    model = MODELS[name]()
    params = {k: p.detach().requires_grad_() for k, p in model.module.named_parameters()}
    outputs = model(params)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(outputs, list(params.values()), torch.ones_like(outputs))
    # torch multiplies the first cotangent of a recurrence with the state zero, too
    assert counter.get_total_flops() == pytest.approx(CASES[name].pass_flops, rel=0.02)


def test_the_convnet_has_the_parameters_that_its_title_says():
    parameters = sum(p.numel() for p in MODELS["convnet"]().module.parameters())
    assert round(parameters / 1000) == int(CASES["convnet"].title.split("ConvNet, ")[1].split(" k")[0])
