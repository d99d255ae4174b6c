"""The core reads nothing back from the device but small matrices and what it has to look at: each reading waits."""

import contextlib
import traceback

import pytest
import torch

import ntkest
from tests.torch.models import NETS, draw

READS = ("cpu", "numpy", "item", "tolist", "__array__", "__float__", "__int__", "__bool__", "__index__")

LOOKED_AT = {
    "host": "what is left after the passes is small, and worked out on the host: each array comes once",
    "_check_number": "are targets finite and not all zero?",
    "append_span": "are new vectors so far from dependent that they need not be orthonormalised?",
    "as_target": "is anything left of targets when they are centred?",
    "check_finite": "are the products of gradients finite? Their examples are named only while the gradients are there",
}
"""Functions of the core that may look at a value, and what for."""


@contextlib.contextmanager
def counted(monkeypatch):
    """The functions of ntkest that caused a reading, innermost first."""
    seen = []
    with monkeypatch.context() as patch:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def read(self, *args, _original=original, _name=name, **kwargs):
                frames = traceback.extract_stack()[:-1]
                ours = [f for f in frames if "/ntkest" in f.filename and f.name not in ("number", "is_concrete")]
                seen.append(ours[-1].name if ours else _name)
                return _original(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, read)
        yield seen


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize(
    "method", ["exact", "reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "auto"]
)
def test_a_fixed_cost_reads_only_what_it_looks_at(method, by, monkeypatch):
    module, x = NETS["mlp"].make()
    J, targets = ntkest.linearize(module, x), draw(4, 3)
    other = ntkest.linearize(*NETS["mlp"].make(seed=1))
    passes = None if method == "exact" else 40
    with counted(monkeypatch) as seen:
        ntkest.trace(J, method=method, by=by, passes=passes)
    decisions = {"append_span"} if (method, by) == ("nystrom++", None) else set()
    assert set(seen) == {"host"} | decisions
    assert seen.count("host") <= 2 * 5  # __array__ and numpy for each array
    with counted(monkeypatch) as seen:
        ntkest.summary(J, targets, method=method, by=by, passes=passes, centered=True)
        ntkest.alignment(J, other, method=method, by=by, passes=passes and 2 * passes)
    assert set(seen) <= LOOKED_AT.keys()
    assert seen.count("host") <= 2 * 40  # for five quantities
    assert len(seen) - seen.count("host") < 20


def test_the_guard_sees_readings(monkeypatch):
    with counted(monkeypatch) as seen:
        float(torch.ones(())), torch.ones(2).tolist(), torch.ones(2).numpy(), bool(torch.ones(()))
    assert len(seen) >= 4


@pytest.mark.parametrize("method", ["exact", "reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++"])
def test_the_core_keeps_to_a_device_without_numbers(method):
    """On torch's "meta" device arrays have shapes only: a constant from elsewhere, or a reading, would raise."""
    module, x = NETS["mlp"].make()
    J = ntkest.linearize(module.to("meta"), x.to("meta"), check=False, batch_axis=0)
    passes = None if method == "exact" else 40
    estimates = ntkest.summary(J, method=method, by="layer", centered="examples", passes=passes)
    for estimate in estimates.values():
        assert all(part.value.device.type == part.std_error.device.type == "meta" for _, part in estimate.walk())
