"""Tests here compare frameworks, and are collected only where all of them are installed."""

from importlib.util import find_spec

import pytest

FRAMEWORKS = ("autograd", "torch", "jax")
collect_ignore_glob = [] if all(map(find_spec, FRAMEWORKS)) else ["test_*.py"]


@pytest.fixture(autouse=True)
def quick_compilations():
    """The networks here are tiny: compiling them well would take longer than running them badly."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
