"""`import ntkest` is light: no framework, and nothing slow that only a later call needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMEWORKS = ["torch", "jax", "jaxlib", "flax", "equinox", "autograd"]
HEAVY = ["scipy", "importlib.metadata", "matplotlib", "sklearn", "rich", "array_api_strict", "hypothesis", "pytest"]

PROBE = """
import json, sys, time
bare = len(sys.modules)
start = time.perf_counter()
import numpy
numpy_seconds = time.perf_counter() - start
before = set(sys.modules)
start = time.perf_counter()
import ntkest
seconds = time.perf_counter() - start
print(json.dumps({"new": sorted(set(sys.modules) - before), "taken": len(before) - bare,
                  "seconds": seconds, "numpy": numpy_seconds}))
"""


@pytest.fixture(scope="module")
def imported() -> dict:
    """What `import ntkest` adds to a fresh interpreter that has imported NumPy."""
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", FRAMEWORKS + HEAVY)
def test_import_leaves_out(imported: dict, name: str) -> None:
    assert "ntkest" in imported["new"]
    assert [m for m in imported["new"] if m == name or m.startswith(f"{name}.")] == []


def test_import_brings_no_adapter(imported: dict) -> None:
    assert [m for m in imported["new"] if m.startswith("ntkest_")] == []


def test_import_takes_less_than_half_as_many_modules_as_numpy_takes(imported: dict, record_property) -> None:
    # Seconds depend on the machine and its load, so they are recorded; what is asserted is how much is imported.
    record_property("import_ntkest_over_import_numpy", imported["seconds"] / imported["numpy"])
    foreign = [m for m in imported["new"] if m.partition(".")[0] not in ("ntkest", "array_api_compat")]
    assert len(foreign) < imported["taken"] / 2, foreign
