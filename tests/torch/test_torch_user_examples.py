"""What users bring, in ten lines or fewer each."""

import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ntkest
from tests import oracle
from tests.torch.cases import Block, Tied, explicit, settled
from tests.torch.models import NETS, draw


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def wanted_trace(module, *inputs, output=None):
    return sum((block**2).sum().item() for block in explicit(module, inputs, output).values())


class Classifier(nn.Module):
    """As Hugging Face writes them."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, input_ids=None, attention_mask=None, return_dict=True):
        mask = attention_mask[..., None].to(self.head.weight.dtype)
        hidden = torch.tanh(self.embed(input_ids)) * mask
        logits = self.head(hidden.sum(1) / mask.sum(1))
        return {"logits": logits, "hidden_states": hidden} if return_dict else types.SimpleNamespace(logits=logits)


@pytest.mark.parametrize("return_dict", [True, False])
def test_keyword_inputs_and_named_outputs(return_dict):
    module = Classifier().double()
    batch = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}

    J = ntkest.linearize(module, **batch, return_dict=return_dict, output="logits")
    trace = ntkest.trace(J, method="exact")

    plain = wanted_trace(module, batch["input_ids"], batch["attention_mask"], output="logits")
    assert J.examples == (0, 2)
    assert float(trace) == pytest.approx(plain, rel=1e-12)


def test_padded_steps_of_a_gru_are_masked():
    gru, x, lengths = nn.GRU(3, 4, batch_first=True).double(), draw(2, 5, 3), torch.tensor([5, 3])
    mask = torch.arange(5) < lengths[:, None]

    weighted = ntkest.linearize(gru, x, output=lambda o: o[0] * mask[..., None])
    selected = ntkest.linearize(gru, x, output=lambda o: o[0][mask])

    rows = explicit(gru, (x,), 0)
    wanted = sum((block.reshape(2, 5, 4, -1)[mask] ** 2).sum().item() for block in rows.values())
    assert selected.outputs.shape == (8, 4)
    for J in (weighted, selected):
        assert float(ntkest.trace(J, method="exact")) == pytest.approx(wanted, rel=1e-12)


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(3, 3)
        self.lora_A, self.lora_B = nn.Linear(3, 1, bias=False), nn.Linear(1, 3, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def test_lora_only():
    module, x = LoRA().double(), draw(4, 3)

    J = ntkest.linearize(module, x, params="*lora_*")
    trace = ntkest.trace(J, method="exact", by="layer")

    rows = explicit(module, (x,))
    assert set(trace.parts) == {"lora_A", "lora_B"}
    for layer, part in trace.parts.items():
        assert float(part) == pytest.approx((rows[f"{layer}.weight"] ** 2).sum().item(), rel=1e-12)


def test_a_resnet_with_batch_norm():
    stem, norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), settled(nn.BatchNorm2d(4), 5, 4, 4, 4)
    resnet = nn.Sequential(stem, norm, nn.ReLU(inplace=True), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module, x = nn.Sequential(resnet, nn.Linear(4, 3)).double().eval(), draw(3, 3, 4, 4)

    found = ntkest.summary(ntkest.linearize(module, x), torch.tensor([0, 1, 2]), method="exact")

    K = oracle.kernel(torch.cat(list(explicit(module, (x,)).values()), 1))
    y = np.eye(3) - 1 / 3
    assert float(found["effective_rank"]) == pytest.approx(oracle.effective_rank(K), rel=1e-10)
    assert float(found["alignment"]) == pytest.approx(oracle.target_alignment(K, y), rel=1e-10)


def test_a_data_loader():
    (module, _), x, y = NETS["mlp"].make(), draw(10, 5), draw(10, 3, seed=1)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)

    J = ntkest.linearize_batches(module, loader, inputs=0)
    alignment = ntkest.alignment(J, y, method="exact")

    K = oracle.kernel(torch.cat(list(explicit(module, (x,)).values()), 1))
    assert float(alignment) == pytest.approx(oracle.target_alignment(K, y.numpy()), rel=1e-10)


def test_integer_tokens():
    module, tokens = NETS["transformer"].make()

    trace = ntkest.trace(ntkest.linearize(module, tokens), method="exact")

    assert float(trace) == pytest.approx(wanted_trace(module, tokens), rel=1e-12)


def test_tied_weights_count_once():
    module, x = Tied().double(), draw(4, 3)

    J = ntkest.linearize(module, x)
    trace = ntkest.trace(J, method="exact")

    assert J.param_names == ("first.weight", "first.bias", "second.bias")
    assert float(trace) == pytest.approx(wanted_trace(module, x), rel=1e-12)


def test_tracking_checkpoints():
    module, x = NETS["mlp"].make()
    checkpoints = [{n: s * p.detach() for n, p in module.named_parameters()} for s in (1.0, 0.5, 0.1)]

    J = ntkest.linearize(module, x)
    moved = [J.at(checkpoint) for checkpoint in checkpoints]
    drift = [float(ntkest.alignment(J, there, method="exact")) for there in moved]

    assert drift[0] == pytest.approx(1, rel=1e-12)
    assert drift[0] > drift[1] > drift[2]
    module.load_state_dict(checkpoints[2])
    assert float(ntkest.trace(moved[2], method="exact")) == pytest.approx(wanted_trace(module, x), rel=1e-12)
