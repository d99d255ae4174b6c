"""Products by oneDNN: as exact as torch's own, only where they are asked for, and never in the way of a derivative."""

import array_api_compat.torch as xp
import pytest
import torch
from ntkest_torch import products
from ntkest_torch.products import FastProducts, Linear, linear, times_transposed
from torch import nn

import ntkest
from ntkest.linearization import row_products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the products that oneDNN is asked for, on whatever processor."""
    monkeypatch.setattr(products, "wider", lambda: True)
    seen = []

    def spied(a, b):
        seen.append((*a.shape, b.shape[0]))
        return times_transposed(a, b)

    monkeypatch.setattr(products, "times_transposed", spied)
    return seen


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(found, wanted, rtol=1e-6):
    return torch.linalg.norm(found.double() - wanted) <= rtol * torch.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("capability", "available", "processor", "found"),
    [
        ("AVX512", True, "vendor_id\t: AuthenticAMD", True),
        ("AVX512", True, "vendor_id\t: GenuineIntel", False),
        ("AVX2", True, "vendor_id\t: AuthenticAMD", False),
        ("AVX512", False, "vendor_id\t: AuthenticAMD", False),
    ],
)
@pytest.mark.parametrize("linux", [True, False])
def test_where_instructions_are_wider(monkeypatch, capability, available, processor, found, linux):
    def read(path, **_):
        if not linux:
            raise FileNotFoundError(path)
        return processor

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    monkeypatch.setattr(products.Path, "read_text", read)
    monkeypatch.setattr(products.platform, "processor", lambda: processor)
    assert products.wider.__wrapped__() == found


@pytest.mark.parametrize(("m", "k", "n"), [(1, 2, 1), (3, 70, 5), (128, 784, 256), (300, 5000, 7)])
def test_products_in_single_precision(m, k, n):
    a, b = normal(m, k), normal(n, k, seed=1)
    assert near(times_transposed(a, b), a.double() @ b.double().T)
    assert near(times_transposed(a[:, 1:], b[:, 1:]), a[:, 1:].double() @ b[:, 1:].double().T)


@pytest.mark.parametrize(
    "product",
    [lambda a, b: a @ b.T, lambda a, b: torch.matmul(a, b.mT), lambda a, b: torch.mm(a, b.t()), lambda a, b: a.mm(b.T)],
    ids=["operator", "matmul", "mm", "method"],
)
def test_which_products_are_caught(calls, product):
    a, b = normal(128, 512), normal(256, 512, seed=1)
    plain = product(a, b)
    assert not calls
    with FastProducts():
        found = product(a, b)
    assert calls == [(128, 512, 256)]
    assert near(found, plain.double())


def test_which_products_are_left_alone(calls, monkeypatch):
    a, b = normal(128, 512), normal(256, 512, seed=1)
    with FastProducts():
        for x, y in [
            (a.double(), b.double().T),
            (a, b.T.contiguous()),  # it would be turned first
            (a[:8], b[:8].T),
            (a[:, :2].repeat(40, 1), b[:, :2].repeat(40, 1).T),
            (a.expand(3, 128, 512), b.T),
            (a, b[0]),
            (a.clone().requires_grad_(), b.T),
        ]:
            x @ y
        torch.func.vmap(lambda x: x @ b.T)(a.expand(2, 128, 512))
        torch.set_float32_matmul_precision("high")
        try:
            a @ b.T
        finally:
            torch.set_float32_matmul_precision("highest")
        monkeypatch.setattr(products, "wider", lambda: False)
        a @ b.T
    assert not calls


@pytest.mark.parametrize("shape", [(5, 600), (600,), (5, 3, 600)])
def test_dense_layers(calls, shape):
    x, weight, bias, cotangent = normal(*shape), normal(512, 600, seed=1), normal(512, seed=2), normal(512, seed=3)
    for many in (False, True):
        inputs = torch.stack([x, 2 * x, -x]) if many else x

        def outputs(function, dtype, inputs=inputs, many=many):
            def single(x):
                return function(x, weight.to(dtype), bias.to(dtype))

            found, pull = torch.func.vjp(torch.func.vmap(single) if many else single, inputs.to(dtype))
            return found, pull(cotangent.to(dtype).expand(found.shape))[0]

        wanted = outputs(torch.nn.functional.linear, torch.float64)
        assert all(near(a, b) for a, b in zip(outputs(linear, torch.float32), wanted, strict=True))
    assert len(calls) == 2
    assert linear(x, weight[:3], bias[:3]).shape == (*shape[:-1], 3)
    assert len(calls) == 2


def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(400, 700), nn.ReLU(), nn.Linear(700, 2)), normal(192, 400, seed=4)


@pytest.mark.parametrize("outputs", ["full", "sum"])
def test_kernels_of_wide_layers(calls, outputs):
    module, x = wide()
    found = ntkest.ntk(ntkest.linearize(module, x), outputs=outputs)
    assert (192, 400, 700) in calls  # the layer
    assert any(n == len(found) for _, _, n in calls)  # a Gram matrix
    assert torch.equal(found, found.T)
    calls.clear()
    wanted = ntkest.ntk(ntkest.linearize(module.double(), x.double()), outputs=outputs)
    assert not calls
    assert near(found, wanted, 1e-5)


def test_kernels_from_batches(calls):
    module, x = wide()
    found = ntkest.pntk(ntkest.linearize_batches(module, [x[:96], x[96:]]))
    assert {(96, 400, 700), (96, 701, 192)} <= set(calls)
    assert near(found, ntkest.pntk(ntkest.linearize(module.double(), x.double())), 1e-5)


def test_differentiable_kernels_keep_their_derivatives(calls):
    module, x = wide()
    parameters = list(module.parameters())
    K = ntkest.pntk(ntkest.linearize(module, x, differentiable=True))
    found = torch.autograd.grad(K.sum(), parameters, allow_unused=True)
    assert not calls
    assert all(g.abs().max() > 0 for g in found[:3])
    assert found[3] is None  # the last bias moves no gradient


def test_the_weight_of_the_quick_layer_has_no_derivative():
    x, weight = normal(2, 600).requires_grad_(), normal(512, 600, seed=1).requires_grad_()
    by_x, by_weight = torch.autograd.grad(Linear.apply(x, weight).sum(), (x, weight), allow_unused=True)
    assert by_weight is None
    assert near(by_x.detach(), weight.detach().double().sum(0).expand(2, 600))


LONG = 3 * products.SLICE + 5


@pytest.mark.parametrize("n", [products.DEEP, LONG])
def test_products_of_long_rows_go_slice_by_slice(calls, n):
    a, b = normal(70, n), normal(100, n, seed=1)
    for left, right in ((a, b), (a, a), (normal(n, 70, seed=2).T, b)):
        calls.clear()
        found = row_products(xp, left, right)
        assert found.dtype == torch.float64
        assert len(calls) == -(-n // products.SLICE)
        assert near(found, left.double() @ right.double().T)


def test_which_products_of_long_rows_are_left_alone(calls, monkeypatch):
    few, many, wide = normal(20, LONG), normal(70, LONG), normal(70, LONG, seed=1)
    double, differentiated = many.double(), many.clone().requires_grad_()
    pairs = [(few, many), (many, few), (double, double), (differentiated, wide), (wide, differentiated)]
    for left, right in pairs:
        assert near(row_products(xp, left, right), left.detach().double() @ right.detach().double().T)
    batched = torch.vmap(lambda left: row_products(xp, left, many))(torch.stack([many, wide]))
    assert near(batched[1], wide.double() @ many.double().T)
    monkeypatch.setattr(products, "wider", lambda: False)
    assert near(row_products(xp, many, wide), many.double() @ wide.double().T)
    assert not calls


def test_derivatives_go_through_products_of_long_rows():
    a = normal(70, 2 * products.SLICE).requires_grad_()
    (found,) = torch.autograd.grad(row_products(xp, a, a).square().sum(), a)
    gram = a.detach().double() @ a.detach().double().T
    assert near(found, 4 * gram @ a.detach().double(), rtol=1e-5)
    with torch.no_grad():
        assert near(row_products(xp, a, a), gram)
