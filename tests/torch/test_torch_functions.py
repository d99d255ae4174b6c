"""Functions of pytrees, the keywords output= and params=, and models that look like those of the wild."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import ntkest
from ntkest.linearization import InvalidValueError

F64 = torch.float64
Pair = namedtuple("Pair", ["weight", "bias"])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_a_function_of_a_nested_tree_names_its_leaves_and_keeps_integers_constant():
    tree = {"layers": [Pair(draw(3, 4), draw(4)), (draw(4, 2), None)], "steps": torch.tensor(2), "scale": 3.0}

    def f(p, x):
        hidden = torch.tanh(x @ p["layers"][0].weight + p["layers"][0].bias)
        return p["scale"] * p["steps"] * (hidden @ p["layers"][1][0])

    x = draw(5, 3, seed=1)
    J = ntkest.linearize(f, tree, x)
    assert J.param_names == ("layers.0.weight", "layers.0.bias", "layers.1.0")
    assert J.examples == (0, 5)
    pulled = J.vjp(torch.eye(10, dtype=F64))
    step = 1e-6
    for index, block in enumerate(J.params):
        bumped = block.reshape(-1)[0].item()
        plus, minus = block.clone(), block.clone()
        plus.reshape(-1)[0], minus.reshape(-1)[0] = bumped + step, bumped - step
        others = list(J.params)
        difference = (
            J.at([*others[:index], plus, *others[index + 1 :]]).outputs
            - J.at([*others[:index], minus, *others[index + 1 :]]).outputs
        )
        torch.testing.assert_close(pulled[index][:, 0], difference.reshape(-1) / (2 * step), rtol=1e-6, atol=1e-7)


def test_a_bare_tensor_is_a_tree():
    x = draw(4, 3)
    J = ntkest.linearize(lambda w, x: x @ w, draw(3), x)
    assert J.param_names == ("params",)
    torch.testing.assert_close(J.vjp(torch.eye(4, dtype=F64))[0], x)


def test_the_same_tensor_at_two_places_of_a_tree_is_two_blocks():
    w, x = draw(3), draw(4, 3)
    J = ntkest.linearize(lambda p, x: x @ p["a"] - 2 * (x @ p["b"]), {"a": w, "b": w}, x)
    a, b = J.vjp(torch.eye(4, dtype=F64))
    torch.testing.assert_close(a, x)
    torch.testing.assert_close(b, -2 * x)


def test_params_selects_among_the_leaves_of_a_tree():
    tree = {"body": draw(3, 4), "head": draw(4, 2)}
    J = ntkest.linearize(lambda p, x: torch.tanh(x @ p["body"]) @ p["head"], tree, draw(5, 3), params="head")
    assert J.param_names == ("head",)
    with pytest.raises(InvalidValueError, match="did you mean head"):
        ntkest.linearize(lambda p, x: x @ p["head"], tree, draw(5, 4), params="haed")


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(3, 3).requires_grad_(False)
        self.lora_A = nn.Linear(3, 1, bias=False)
        self.lora_B = nn.Linear(1, 3, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


@pytest.mark.parametrize("wanted", [None, "*lora_*", ["lora_A", "lora_B"], lambda name: "lora" in name])
def test_lora_only(wanted):
    torch.manual_seed(0)
    J = ntkest.linearize(LoRA().double(), draw(4, 3), params=wanted)
    assert J.param_names == ("lora_A.weight", "lora_B.weight")


def test_explicit_names_include_frozen_parameters():
    torch.manual_seed(0)
    module, x = LoRA().double(), draw(4, 3)
    J = ntkest.linearize(module, x, params="base.bias")
    torch.testing.assert_close(J.vjp(torch.eye(12, dtype=F64))[0], torch.eye(3, dtype=F64).repeat(4, 1))
    assert not module.base.bias.requires_grad


@dataclass
class Result:
    logits: torch.Tensor
    hidden: torch.Tensor


class Wild(nn.Module):
    """Keyword inputs, a mask, and a dict, an ordered dict, a dataclass or a tuple as result."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids=None, attention_mask=None, settings=None):
        hidden = self.embed(input_ids) * attention_mask[..., None]
        logits = self.head(hidden.mean(1)) * (settings or {}).get("scale", 1.0)
        match self.kind:
            case "dict":
                return {"logits": logits, "hidden": hidden, "cache": None}
            case "ordered":
                return OrderedDict(logits=logits, hidden=hidden)
            case "dataclass":
                return Result(logits, hidden)
        return logits, hidden


@pytest.mark.parametrize("kind", ["dict", "ordered", "dataclass", "tuple"])
def test_keyword_inputs_and_structured_outputs(kind):
    torch.manual_seed(0)
    module = Wild(kind).double()
    ids = torch.tensor([[1, 2, 0], [3, 4, 5]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    call = {"input_ids": ids, "attention_mask": mask, "settings": {"scale": torch.full((2, 1), 2.0, dtype=F64)}}
    J = ntkest.linearize(module, output=0 if kind == "tuple" else "logits", **call)
    whole = ntkest.linearize(module, **call)
    assert J.outputs.shape == (2, 3)
    assert J.examples == (0, 2)
    assert whole.outputs.shape == (2, 3 + 12)
    wide = torch.cat([torch.eye(6, dtype=F64).reshape(6, 2, 3), torch.zeros(6, 2, 12, dtype=F64)], 2).reshape(6, 30)
    torch.testing.assert_close(whole.vjp(wide), J.vjp(torch.eye(6, dtype=F64)))


def test_an_output_function_reaches_gradients():
    torch.manual_seed(0)
    gru, x = nn.GRU(2, 3, batch_first=True).double(), draw(4, 5, 2)
    last = ntkest.linearize(gru, x, output=lambda o: o[0][:, -1])
    every = ntkest.linearize(gru, x, output=0)
    pick = torch.zeros(12, 4, 5, 3, dtype=F64)
    pick[torch.arange(12), torch.arange(12) // 3, -1, torch.arange(12) % 3] = 1
    torch.testing.assert_close(last.vjp(torch.eye(12, dtype=F64)), every.vjp(pick.reshape(12, 60)))


def test_packed_sequences_go_through():
    torch.manual_seed(0)
    gru, x = nn.GRU(2, 3).double(), draw(4, 2, 2)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]))
    J = ntkest.linearize(gru, packed, output=lambda o: o[0].data)
    plain = ntkest.linearize(gru, x, output=lambda o: torch.cat([o[0][:2].reshape(-1, 3), o[0][2:, 0]]))
    torch.testing.assert_close(J.vjp(torch.eye(18, dtype=F64)), plain.vjp(torch.eye(18, dtype=F64)))
