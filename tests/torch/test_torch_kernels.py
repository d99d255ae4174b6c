"""Exact kernels of torch modules, against products of Jacobians that autograd writes out row by row."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import ntkest
from tests.torch.cases import explicit
from tests.torch.kernel_cases import APART, CASES

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning"),
]


def by_example(case, module, inputs):
    """J in float64 as (N, O, P_l), for each parameter."""
    axis, count = case.examples
    with torch.no_grad():
        result = module(*(x.clone() for x in inputs))
    outputs = result[case.options["output"]] if case.options else result
    order = torch.arange(outputs.numel()).reshape(outputs.shape).movedim(axis, 0).reshape(-1)
    rows = explicit(module, inputs, case.options.get("output"))
    return {name: J[order].reshape(count, len(order) // count, J.shape[1]) for name, J in rows.items()}


def kernel(A, B):
    """(N, O, N', O')."""
    return sum(torch.einsum("nop,mqp->nomq", A[name], B[name]) for name in A)


def assert_near(found, wanted, rtol):
    assert found.shape == wanted.shape
    assert torch.linalg.norm(found.double() - wanted) <= rtol * torch.linalg.norm(wanted)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def subject(request):
    """A case, with two batches in float64 and what belongs to them."""
    case = request.param
    module, first = case.make()
    with torch.random.fork_rng():
        torch.manual_seed(8)
        second = tuple(x.double() if x.is_floating_point() else x for x in case.inputs())
    return case, module, (first, second), [by_example(case, module, inputs) for inputs in (first, second)]


def linearized(case, module, inputs, dtype=torch.float64):
    module = module.to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    return ntkest.linearize(module, *inputs, batch_axis=case.examples[0], **case.options)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"])
def test_kernels_of_every_layer(subject, dtype, rtol):
    case, module, batches, (A, _) = subject
    J = linearized(case, module, batches[0], dtype)
    K = kernel(A, A)
    count, size = K.shape[:2]
    full = ntkest.ntk(J)
    assert full.dtype == dtype
    assert_near(full, K.reshape(count * size, count * size), rtol)
    assert_near(ntkest.ntk(J, outputs="sum"), K.sum((1, 3)), rtol)
    assert_near(ntkest.ntk(J, outputs="trace"), torch.einsum("nomo->nm", K) / size, rtol)
    assert_near(ntkest.pntk(J), K.sum((1, 3)) / size, rtol)
    assert J._examples().batches == (case.name not in APART)


def test_kernels_between_batches(subject):
    case, module, batches, (A, B) = subject
    K = kernel(A, B)
    count, size = K.shape[:2]
    J, other = (linearized(case, module, inputs) for inputs in batches)
    assert_near(ntkest.ntk(J, other), K.reshape(count * size, -1), 1e-10)
    assert_near(ntkest.pntk(J, other), K.sum((1, 3)) / size, 1e-10)


def test_parameters_have_their_own_kernels(subject):
    case, module, batches, (A, _) = subject
    J = linearized(case, module, batches[0])
    parts = ntkest.ntk(J, outputs="sum", by="parameter")
    assert set(parts) == set(A)
    for name, part in parts.items():
        own = kernel({name: A[name]}, {name: A[name]}).sum((1, 3))
        assert torch.linalg.norm(part - own) <= 1e-10 * torch.linalg.norm(kernel(A, A).sum((1, 3)))
    layers = ntkest.ntk(J, outputs="sum", by="layer")
    torch.testing.assert_close(sum(layers.values()), ntkest.ntk(J, outputs="sum"))


CURVED = [
    "conv2d options",
    "conv2d depthwise",
    "transposed 1d",
    "language model, tied",
    "gru two-way",
    "lstm cell",
    "layer registered twice",
]


@pytest.mark.parametrize("name", CURVED)
def test_gradients_flow_through_kernels_of_layers(name):
    case = next(case for case in CASES if case.name == name)
    module, inputs = case.make()
    parameters = list(module.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the others cannot be differentiated twice
        result = module(*inputs)
    sums = (result[case.options["output"]] if case.options else result).movedim(case.examples[0], 0).flatten(1).sum(1)
    rows = [
        torch.autograd.grad(y, parameters, create_graph=True, allow_unused=True, materialize_grads=True) for y in sums
    ]
    A = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    J = ntkest.linearize(module, *inputs, batch_axis=case.examples[0], differentiable=True, **case.options)
    found = ntkest.ntk(J, outputs="sum")
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        torch.autograd.grad((weights * K).sum(), parameters, allow_unused=True, materialize_grads=True)
        for K in (found, A @ A.T)
    )
    assert any(g.abs().max() > 0.01 for g in theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
