"""Tries an installed ntkest where no framework is. Run by `nox -s dist` from an empty folder."""

from __future__ import annotations

import math
import sys
from importlib.metadata import distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import ntkest

FRAMEWORKS = {"torch", "jax", "jaxlib", "autograd", "flax", "equinox"}
ADAPTERS = ("ntkest_numpy", "ntkest_torch", "ntkest_jax")


def main() -> None:
    """Every check in turn; the first that fails ends the program."""
    assert not [name for name in FRAMEWORKS if find_spec(name)], "this is to be tried without any framework"
    assert Path(ntkest.__file__).is_relative_to(sys.prefix), f"ntkest comes from {ntkest.__file__}, not from the wheel"

    shipped = {str(path) for path in distribution("ntkest").files or ()}
    for package in ("ntkest", *ADAPTERS):
        assert f"{package}/py.typed" in shipped, f"{package}/py.typed is not shipped"
    stray = {path.partition("/")[0] for path in shipped} & {"tests", "docs", "benchmarks", "backends", "noxfile.py"}
    assert not stray, f"{stray} would land at the top of site-packages"

    A = np.random.default_rng(0).standard_normal((20, 30))
    estimate = ntkest.trace(ntkest.from_jacobian(A), method="exact")
    assert math.isclose(float(estimate), float(np.sum(A * A)), rel_tol=1e-12), estimate

    for entry in entry_points(group="ntkest.backends"):
        if entry.dist is not None and entry.dist.name == "ntkest":
            _resolve(entry)
    refused = _error(lambda: ntkest.linearize(len, backend="torch"))
    assert isinstance(refused, ntkest.NTKError), refused
    assert "pip install" in str(refused), refused
    print(f"ntkest of {Path(ntkest.__file__).parent} works without a framework")


def _resolve(entry) -> None:
    """An adapter is there, and lacks nothing but its own framework."""
    assert find_spec(entry.module) is not None, f"{entry} names a module that is not shipped"
    trouble = _error(entry.load)
    if trouble is None:
        assert hasattr(entry.load(), "linearize"), f"{entry} is not a backend"
    else:
        missing = getattr(trouble, "name", None) or ""
        assert isinstance(trouble, ImportError), repr(trouble)
        assert missing.partition(".")[0] in FRAMEWORKS, f"{entry} cannot be loaded: {trouble!r}"


def _error(call) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


if __name__ == "__main__":
    main()
