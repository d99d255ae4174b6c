"""Backends for the tests: every test with a `backend` argument runs on all that can be imported."""

import os

import pytest

from tests.networks import DENSE, available

BACKENDS = available()
"""Set NTKEST_BACKENDS=torch,jax to require them: what is named there and missing is an error, not a skip."""


def pytest_configure(config):
    required = [name for name in os.environ.get("NTKEST_BACKENDS", "").split(",") if name]
    missing = sorted(set(required) - set(BACKENDS))
    if missing:
        raise pytest.UsageError(f"NTKEST_BACKENDS asks for {', '.join(missing)}; there are {', '.join(BACKENDS)}")


def pytest_report_header(config):
    return f"backends: {', '.join(BACKENDS)}"


@pytest.fixture(params=BACKENDS)
def backend(request):
    """The name of a backend, for `networks.mlp`."""
    return request.param


@pytest.fixture(params=[name for name in BACKENDS if name not in DENSE])
def framework(request):
    """The name of a backend that differentiates functions, for `networks.linearized`."""
    return request.param
