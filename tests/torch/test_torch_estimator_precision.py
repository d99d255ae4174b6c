"""Estimates in reduced precision: the dtype of scalars, the digits that are left, and scales far from one."""

import pytest
import torch
from torch import nn

import ntkest
from ntkest.estimators import XNYSTRACE, XTRACE
from ntkest.inference import frobenius_norm_of
from ntkest.quantities import pose
from tests.torch.models import NETS, draw

LOOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
TARGETS = draw(4, 3, seed=2)


def estimates(J, targets, **keywords):
    return ntkest.summary(J, targets, **keywords)


@pytest.mark.parametrize("method", ["exact", "reverse", "forward", "hutchinson", "hutch++"])
@pytest.mark.parametrize("dtype", LOOSE)
def test_values_in_every_precision(dtype, method):
    keywords = {"method": method} if method == "exact" else {"method": method, "passes": 48}
    reference = estimates(ntkest.linearize(*NETS["mlp"].make()), TARGETS, **keywords)
    found = estimates(ntkest.linearize(*NETS["mlp"].make(dtype=dtype)), TARGETS.to(dtype), **keywords)
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    for name, estimate in found.items():
        assert estimate.value.dtype == estimate.std_error.dtype == wide
        assert float(estimate) == pytest.approx(float(reference[name]), rel=LOOSE[dtype]), name


@pytest.mark.parametrize("method", ["exact", "reverse", "forward"])
def test_values_under_autocast(method):
    keywords = {"method": method} if method == "exact" else {"method": method, "passes": 48}
    reference = estimates(ntkest.linearize(*NETS["mlp"].make()), TARGETS, **keywords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        J = ntkest.linearize(*NETS["mlp"].make(dtype=torch.float32))
    assert J.outputs.dtype == torch.bfloat16
    for name, estimate in estimates(J, TARGETS.float(), **keywords).items():
        assert estimate.value.dtype == torch.float32
        assert float(estimate) == pytest.approx(float(reference[name]), rel=LOOSE[torch.bfloat16]), name


@pytest.mark.parametrize("scale", [1e-15, 1e-7, 1e8, 1e15])
@pytest.mark.parametrize(
    "method", ["exact", "reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "adaptive-hutch++"]
)
def test_rescaled_outputs_in_float32(method, scale):
    module, x = NETS["mlp"].make(dtype=torch.float32)
    keywords = {"method": method} if method == "exact" else {"method": method, "passes": 48}
    base = estimates(ntkest.linearize(module, x), TARGETS.float(), by="layer", **keywords)
    scaled = estimates(ntkest.linearize(module, x, output=lambda y: y * scale), TARGETS.float(), by="layer", **keywords)
    for name, power in (("trace", 2), ("frobenius_norm", 2), ("effective_rank", 0), ("alignment", 0)):
        for (_, one), (_, other) in zip(base[name].walk(), scaled[name].walk(), strict=True):
            assert float(other) / scale**power == pytest.approx(float(one), rel=1e-4), name
            low, high = one.interval()
            assert other.interval() == pytest.approx((low * scale**power, high * scale**power), rel=1e-3)


class Wide(nn.Module):
    """Four million parameters in one product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(draw(2000, 2000, seed=3).float() / 45)

    def forward(self, x):
        return torch.tanh(x @ self.weight).reshape(-1, 4, 500).sum(-1)


def test_sums_keep_the_digits_of_float32():
    """Against float64 sums of the same float32 images; sums in float32 alone would lose one digit or two."""
    x = draw(2, 2000, seed=4).float()
    J = ntkest.linearize(Wide(), x)
    rows = J.vjp(torch.eye(8))[0].double()
    K = rows @ rows.T
    found = ntkest.summary(J, method="exact")
    assert found["trace"].value.dtype == torch.float32
    assert float(found["trace"]) == pytest.approx(torch.trace(K).item(), rel=1e-6)
    assert float(found["frobenius_norm"]) == pytest.approx(K.norm().item(), rel=1e-6)
    assert float(ntkest.trace(J, method="exact")) == pytest.approx(torch.trace(K).item(), rel=1e-6)

    probes = ntkest.draw_probes(J, 6, seed=1)
    bits = probes.cotangents[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1
    signs = (1.0 - 2.0 * bits.reshape(6, 8).float())[:, :8]
    images = J.vjp(signs)[0].double()
    gram = images @ images.T
    pairs = gram[~torch.eye(6, dtype=torch.bool)]
    assert float(ntkest.trace(J, probes=probes)) == pytest.approx(gram.diagonal().mean().item(), rel=1e-6)
    assert float(ntkest.frobenius_norm(J, probes=probes)) == pytest.approx((pairs**2).mean().sqrt().item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["xnystrace", "xtrace", "xtrace-power", "nystrom++", "adaptive-hutch++", "auto"])
def test_explicit_jacobians_in_half_precision(dtype, method):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn((90, 130), generator=generator) / torch.arange(1, 131)
    K = (lambda a: a @ a.T)(A.to(dtype).double())
    for passes in (40, 60):
        e = ntkest.trace(ntkest.from_jacobian(A.to(dtype)), method=method, passes=passes)
        assert e.value.dtype == torch.float32
        assert abs(float(e) - float(K.trace())) < 5 * float(e.std_error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_xtrace_takes_over_a_half_precision_sketch(dtype):
    torch.manual_seed(0)
    J = ntkest.linearize(nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 3)).to(dtype), draw(20, 4).to(dtype))
    problem = pose(J, [frobenius_norm_of(0)])
    state = XNYSTRACE.extend(problem, None, XNYSTRACE.draw(problem, 0, 0, 6))
    adopted = XTRACE.moments(problem, XTRACE.adopt(problem, state, 6))["square", 0]
    afresh = XTRACE.moments(problem, XTRACE.extend(problem, None, XTRACE.draw(problem, 0, 0, 6)))["square", 0]
    assert float(adopted.value[0]) == pytest.approx(float(afresh.value[0]), rel=LOOSE[dtype])
