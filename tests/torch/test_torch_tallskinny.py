"""The QR over parameter blocks in torch: precisions, and gradients."""

import array_api_compat.torch as xp
import numpy as np
import torch

from ntkest import tallskinny
from ntkest.tallskinny import orthonormalise, separate


def test_bfloat16_blocks_are_factored_in_float32():
    torch.manual_seed(0)
    blocks = tuple(torch.randn(12, n).to(torch.bfloat16) for n in (3000, 7, 500))
    q, r = orthonormalise(xp, blocks)
    assert r.dtype == q[0].dtype == torch.float32
    Q, Y = torch.cat(q, dim=1), torch.cat(blocks, dim=1).float()
    torch.testing.assert_close(Q @ Q.T, torch.eye(12), atol=2e-6, rtol=0)
    torch.testing.assert_close(r.T @ Q, Y, atol=2e-5, rtol=0)


def test_blocks_of_several_precisions_are_factored_in_the_widest():
    blocks = (torch.randn(3, 20), torch.randn(3, 5, dtype=torch.float64))
    q, r = orthonormalise(xp, blocks)
    assert r.dtype == q[0].dtype == torch.float64


def slices_of_any_rank(rank):
    """Six vectors of `rank` in three blocks with gradients, the last all zero."""
    draw = np.random.default_rng(0)
    leaves = [torch.tensor(draw.standard_normal((rank, n)), requires_grad=True) for n in (50, 67)]
    leaves.append(torch.zeros(rank, 30, dtype=torch.float64, requires_grad=True))
    mix = torch.tensor(draw.standard_normal((6, rank)))
    return leaves, tuple(mix @ leaf for leaf in leaves), torch.tensor(draw.standard_normal(147))


def test_gradients_pass_through_a_zero_block(monkeypatch):
    """The gradient of ‖Qᵀv‖² is that of one flat QR."""
    monkeypatch.setattr(tallskinny, "NUMBERS", 60)
    leaves, blocks, v = slices_of_any_rank(6)
    q, _ = orthonormalise(xp, separate(xp, blocks))
    found = torch.autograd.grad((torch.cat(q, dim=1) @ v).square().sum(), leaves)
    Q, _ = torch.linalg.qr(torch.cat(leaves, dim=1).T)
    wanted = torch.autograd.grad((v @ Q).square().sum(), leaves)
    for g, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-6)


def test_gradients_pass_through_dependent_vectors(monkeypatch):
    """Where v lies in the range of Y, ‖Qᵀv‖² has the gradient of ‖v‖²."""
    monkeypatch.setattr(tallskinny, "NUMBERS", 60)
    leaves, blocks, _ = slices_of_any_rank(4)
    v = torch.cat([leaf[0] + leaf[2] for leaf in leaves])
    q, _ = orthonormalise(xp, separate(xp, blocks))
    found = torch.autograd.grad((torch.cat(q, dim=1) @ v).square().sum(), leaves, retain_graph=True)
    for g, w in zip(found, torch.autograd.grad(v.square().sum(), leaves), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-4)
