"""Backends for the tests: every test with a `backend` argument runs on all that can be imported."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec

import pytest

from tests.distilling import ONE, posed
from tests.networks import DENSE, available
from tests.stores import FACTORY, Turns

SPAWN = multiprocessing.get_context("spawn")

BACKENDS = available()
"""Set NTKEST_BACKENDS=torch,jax to require them: what is named there and missing is an error, not a skip."""


def pytest_addoption(parser):
    parser.addoption(
        "--framework",
        metavar="NAME",
        help="only tests that meet this framework: in its folder, parametrized with it, or marked as needing it",
    )


def pytest_configure(config):
    required = [name for name in os.environ.get("NTKEST_BACKENDS", "").split(",") if name]
    missing = sorted(set(required) - set(BACKENDS))
    if missing:
        raise pytest.UsageError(f"NTKEST_BACKENDS asks for {', '.join(missing)}; there are {', '.join(BACKENDS)}")


def pytest_report_header(config):
    return f"backends: {', '.join(BACKENDS)}"


def pytest_collection_modifyitems(config, items):
    for item in items:
        missing = [module for module in _needs(item) if find_spec(module) is None]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))
    name = config.getoption("--framework")
    if name is not None:
        others = [item for item in items if not _meets(item, name)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def _needs(item):
    """The modules that the marks of a test name."""
    return [module for mark in item.iter_markers("needs") for module in mark.args]


def _meets(item, framework):
    """Whether a test would not be the same without a framework."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = [value for value in given if isinstance(value, str)]
    return item.path.parent.name == framework or framework in (*names, *_needs(item))


@pytest.fixture(params=BACKENDS)
def backend(request):
    """The name of a backend, for `networks.mlp`."""
    return request.param


@pytest.fixture(params=[name for name in BACKENDS if name not in DENSE])
def framework(request):
    """The name of a backend that differentiates functions, for `networks.linearized`."""
    return request.param


@pytest.fixture
def model(framework):
    """A network that is distilled, ``(f, params, inputs)``, and other inputs, in each framework."""
    return posed(framework)


@pytest.fixture
def one():
    """The same in one framework."""
    if ONE is None:
        pytest.skip("no framework is installed")
    return posed(ONE)


@pytest.fixture
def target(tmp_path):
    """The name of a factory in a file of them, for workers."""
    folder = tmp_path / "code"
    folder.mkdir()
    path = folder / "factories.py"
    path.write_text(FACTORY)
    return lambda name: f"{path}:{name}"


@pytest.fixture
def turns():
    """Two workers that take tasks in turns, so that one describes what is wanted and the other begins it."""
    with ProcessPoolExecutor(1, SPAWN) as one, ProcessPoolExecutor(1, SPAWN) as other:
        yield Turns(one, other)


@pytest.fixture(scope="module")
def pool():
    """Two workers."""
    with ProcessPoolExecutor(2, SPAWN) as executor:
        yield executor
