"""Every layer of the table: both modes against the explicit Jacobian, and nothing of the user's changed."""

import pytest
import torch

import ntkest
from ntkest.linearization import StaleLinearizationError
from tests.torch.cases import CASES, explicit

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def snapshot(module, inputs):
    return (
        {name: (t.clone(), t.requires_grad, t.grad) for name, t in module.state_dict(keep_vars=True).items()},
        [part.training for part in module.modules()],
        [x.clone() for x in inputs if torch.is_tensor(x)],
        torch.get_rng_state(),
        (torch.is_grad_enabled(), torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()),
        (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()),
    )


def assert_same(before, after):
    assert before[1] == after[1]
    assert before[4:] == after[4:]
    assert torch.equal(before[3], after[3])
    for x, y in zip(before[2], after[2], strict=True):
        assert torch.equal(x, y)
    assert before[0].keys() == after[0].keys()
    for name, (value, flag, grad) in before[0].items():
        assert torch.equal(value, after[0][name][0]), name
        assert (flag, grad) == after[0][name][1:], name


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_both_modes_equal_the_explicit_jacobian_and_leave_all_as_it_was(case, dtype):
    module, inputs = case.make(dtype)
    wanted = explicit(module, inputs, case.options.get("output"))
    before = snapshot(module, inputs)
    J = ntkest.linearize(module, *inputs, **case.options)
    size = J.outputs.numel()
    eye = torch.eye(size, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    tangents = tuple(torch.randn(3, p.numel(), generator=generator, dtype=dtype) for p in J.params)
    pulled, pushed = J.vjp(eye), J.jvp(tangents)
    alone = J.map_vjp(lambda blocks: blocks, eye, chunk=1)
    assert_same(before, snapshot(module, inputs))

    tight = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    assert J.param_names == tuple(wanted)
    assert J.modes == {"jvp", "vjp"}
    assert J.passes_per_jvp == 1
    for block, single, matrix in zip(pulled, alone, wanted.values(), strict=True):
        torch.testing.assert_close(block, matrix, **tight)
        torch.testing.assert_close(single, matrix, **tight)
    expected = sum(v @ matrix.T for v, matrix in zip(tangents, wanted.values(), strict=True))
    torch.testing.assert_close(pushed, expected, **tight)


@every_case
def test_examples_are_found_where_they_do_not_interact(case):
    module, inputs = case.make()
    assert ntkest.linearize(module, *inputs, **case.options).examples == case.examples


@every_case
def test_a_changed_parameter_is_noticed_and_a_copy_is_not_reached(case):
    module, inputs = case.make()
    J = ntkest.linearize(module, *inputs, **case.options)
    kept = ntkest.linearize(module, *inputs, copy=True, check=False, **case.options)
    omega = torch.ones(1, J.outputs.numel(), dtype=J.outputs.dtype)
    tangents = tuple(torch.ones(1, p.numel(), dtype=p.dtype) for p in J.params)
    pulled, pushed = J.vjp(omega), J.jvp(tangents)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9).add_(0.1)
    for use in (lambda: J.vjp(omega), lambda: J.jvp(tangents)):
        with pytest.raises(StaleLinearizationError, match="changed in place"):
            use()
    module.train(not case.train)
    torch.testing.assert_close(kept.vjp(omega), pulled)
    torch.testing.assert_close(kept.jvp(tangents), pushed)


@every_case
def test_another_place_equals_a_fresh_linearization(case):
    module, inputs = case.make()
    J = ntkest.linearize(module, *inputs, copy=True, **case.options)
    omega = torch.randn(2, J.outputs.numel(), generator=torch.Generator().manual_seed(5), dtype=J.outputs.dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9)
    fresh = ntkest.linearize(module, *inputs, **case.options)
    for state in (module.state_dict(), module, [p for p in module.parameters() if p.requires_grad]):
        if isinstance(state, list) and not all(p.requires_grad for p in module.parameters()):
            continue  # a list says nothing about the frozen layer, which moved too
        moved = J.at(state)
        torch.testing.assert_close(moved.outputs, fresh.outputs)
        torch.testing.assert_close(moved.vjp(omega), fresh.vjp(omega))
        torch.testing.assert_close(moved.jvp(fresh.vjp(omega)), fresh.jvp(fresh.vjp(omega)))
