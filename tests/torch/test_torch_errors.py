"""Bad inputs, each with its own clear error."""

import numpy as np
import pytest
import torch
from torch import nn

import ntkest
from ntkest.linearization import (
    DeviceMismatchError,
    InconsistentDerivativesError,
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    NotRepeatableError,
    NTKError,
    ShapeError,
    UnsupportedModeError,
)

ONES = torch.ones(4, 3)
UNEVEN = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.5, 9.0]])


def linear(**kwargs):
    torch.manual_seed(0)
    return nn.Linear(3, 2, **kwargs)


def frozen():
    return linear().requires_grad_(False)


def broken(value):
    module = linear()
    with torch.no_grad():
        module.weight[0, 0] = value
    return module


class Detaching(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


class WrongRule(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent


class Wrong(nn.Linear):
    def forward(self, x):
        return WrongRule.apply(super().forward(x))


def root(p, x):
    return torch.sqrt(x @ (p * 0))


MAKING = {
    "all frozen": (lambda: ntkest.linearize(frozen(), ONES), InvalidValueError, "all 2 parameters"),
    "no parameters": (lambda: ntkest.linearize(nn.ReLU(), ONES), InvalidValueError, "no parameters"),
    "no floating leaf": (lambda: ntkest.linearize(lambda p: p, torch.arange(3)), InvalidValueError, "no floating"),
    "not initialized": (lambda: ntkest.linearize(nn.LazyLinear(2), ONES), InvalidValueError, "not initialized"),
    "unknown name": (
        lambda: ntkest.linearize(linear(), ONES, params="wieght"),
        InvalidValueError,
        "did you mean",
    ),
    "unknown key": (
        lambda: ntkest.linearize(lambda p: {"a": p}, ONES, output="b"),
        InvalidValueError,
        "not in the model's result",
    ),
    "integer outputs": (
        lambda: ntkest.linearize(linear(), ONES, output=lambda y: y.argmax(1)),
        NonDifferentiableError,
        "the output is torch.int64",
    ),
    "complex outputs": (
        lambda: ntkest.linearize(linear(), ONES, output=lambda y: torch.complex(y, y)),
        NonDifferentiableError,
        "the output is torch.complex64",
    ),
    "complex parameters": (
        lambda: ntkest.linearize(lambda p: (p * p.conj()).real, torch.ones(3, dtype=torch.complex64)),
        NonDifferentiableError,
        "parameter 'params' is torch.complex64",
    ),
    "detached": (lambda: ntkest.linearize(Detaching(3, 2), ONES), NonDifferentiableError, "do not depend"),
    "no examples": (lambda: ntkest.linearize(linear(), torch.ones(0, 3)), InvalidValueError, "no entries"),
    "no output": (lambda: ntkest.linearize(lambda p: None, ONES), NonDifferentiableError, "returned no array"),
    "not an array": (lambda: ntkest.linearize(lambda p: 3.0, ONES), InvalidTypeError, "not an array"),
    "nan parameter": (lambda: ntkest.linearize(broken(float("nan")), ONES), NonFiniteError, "parameter 'weight'"),
    "infinite input": (lambda: ntkest.linearize(linear(), ONES / 0), NonFiniteError, "outputs are NaN or inf"),
    "infinite slope": (lambda: ntkest.linearize(root, torch.ones(3), ONES), NonFiniteError, "a derivative"),
    "dropout": (
        lambda: ntkest.linearize(nn.Sequential(linear(), nn.Dropout()), ONES),
        NotRepeatableError,
        r"call model.eval\(\)",
    ),
    "random function": (
        lambda: ntkest.linearize(lambda p: p * torch.rand(3), torch.ones(3)),
        NotRepeatableError,
        "stochastic",
    ),
    "inputs elsewhere": (
        lambda: ntkest.linearize(linear(), ONES.to("meta")),
        DeviceMismatchError,
        "parameter 'weight' is on cpu.*is on meta",
    ),
    "parameters in two places": (
        lambda: ntkest.linearize(
            lambda p: p["a"] + p["b"].sum() * 0, {"a": torch.ones(2), "b": torch.ones(2, device="meta")}
        ),
        DeviceMismatchError,
        "parameter 'a' is on cpu.*parameter 'b' is on meta",
    ),
    "a bound method": (lambda: ntkest.linearize(linear().forward, ONES), InvalidTypeError, "pass the module itself"),
    "no params": (lambda: ntkest.linearize(lambda: 1, backend="torch"), InvalidTypeError, "needs the parameters"),
    "wrong rule": (
        lambda: ntkest.linearize(Wrong(3, 2), UNEVEN),
        InconsistentDerivativesError,
        "disagree",
    ),
    "interacting": (
        lambda: ntkest.linearize(nn.Sequential(linear(), nn.BatchNorm1d(2)), torch.eye(3), batch_axis=0),
        InteractingExamplesError,
        "not independent",
    ),
    "no such axis": (lambda: ntkest.linearize(linear(), ONES, batch_axis=2), InvalidValueError, "not an axis"),
}


@pytest.mark.parametrize("name", MAKING)
def test_a_linearization_that_cannot_be_made(name):
    make, kind, words = MAKING[name]
    with pytest.raises(kind, match=words) as caught:
        make()
    assert isinstance(caught.value, NTKError)


def test_the_models_own_errors_come_through():
    with pytest.raises(TypeError, match="positional argument"):
        ntkest.linearize(linear(), ONES, ONES)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        ntkest.linearize(linear(), torch.ones(4, 5))


USING = {
    "short cotangents": (lambda J: J.vjp(torch.ones(2, 7)), InvalidValueError, r"\(k, 8\)"),
    "flat cotangents": (lambda J: J.vjp(torch.ones(8)), InvalidValueError, r"\(k, 8\)"),
    "short tangents": (lambda J: J.jvp((torch.ones(2, 5), torch.ones(2, 2))), InvalidValueError, "'weight'"),
    "a block too few": (lambda J: J.jvp((torch.ones(2, 6),)), ShapeError, "tuple of 2"),
    "unequal probes": (lambda J: J.jvp((torch.ones(2, 6), torch.ones(3, 2))), NTKError, "probes"),
    "numpy": (lambda J: J.vjp(np.ones((2, 8))), InvalidTypeError, "must be a torch.Tensor"),
    "integers": (lambda J: J.vjp(torch.ones(2, 8, dtype=torch.int64)), NonDifferentiableError, "torch.int64"),
    "another device": (lambda J: J.vjp(torch.ones(2, 8, device="meta")), DeviceMismatchError, "meta"),
    "chunk zero": (lambda J: J.map_vjp(lambda b: b, torch.ones(2, 8), chunk=0), InvalidValueError, "chunk="),
    "at: unknown name": (lambda J: J.at({"wieght": torch.ones(2, 3)}), InvalidValueError, "'wieght'"),
    "at: shape": (lambda J: J.at({"weight": torch.ones(3, 2)}), ShapeError, "'weight'"),
    "at: dtype": (lambda J: J.at({"weight": torch.ones(2, 3, dtype=torch.float64)}), InvalidTypeError, "'weight'"),
    "at: device": (lambda J: J.at({"weight": torch.ones(2, 3, device="meta")}), DeviceMismatchError, "'weight'"),
    "at: a number": (lambda J: J.at(3), InvalidTypeError, "takes a state"),
    "at: not finite": (lambda J: J.at({"weight": torch.full((2, 3), torch.nan)}), NonFiniteError, "'weight'"),
}


@pytest.mark.parametrize("name", USING)
def test_a_linearization_that_is_used_wrongly(name):
    use, kind, words = USING[name]
    J = ntkest.linearize(linear(), ONES)
    with pytest.raises(kind, match=words):
        use(J)


def test_an_error_in_reduce_is_not_taken_for_one_of_the_model():
    J = ntkest.linearize(linear(), ONES)

    def fail(_):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        J.map_jvp(fail, tuple(torch.ones(2, p.numel()) for p in J.params))


def test_a_layer_without_any_forward_derivative_is_named():
    module = nn.Sequential(nn.EmbeddingBag(6, 3, mode="sum"), nn.Linear(3, 2))
    J = ntkest.linearize(module, torch.tensor([[0, 1], [2, 3]]))
    assert J.modes == {"vjp"}
    J.vjp(torch.eye(4))
    with pytest.raises(UnsupportedModeError, match=r"layer '0' \(EmbeddingBag\).*method='reverse'"):
        J.jvp(tuple(torch.ones(1, p.numel()) for p in J.params))
