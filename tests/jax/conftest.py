"""Nothing here is collected where jax is not installed."""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("jax") else ["test_*.py"]


@pytest.fixture(autouse=True)
def quick_compilations():
    """The models here are tiny: compiling them well would take ten times as long as running them badly."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def float64():
    """Double precision for one test, so that what is compared agrees to many digits."""
    import jax

    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # before jax 0.8
        from jax.experimental import enable_x64 as enable
    with enable(True):
        yield


@pytest.fixture
def compilations():
    """A function that counts XLA compilations since its last call."""
    import jax

    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    def count():
        number = len(seen)
        seen.clear()
        return number

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield count
    stop = getattr(jax.monitoring, "unregister_event_duration_listener", None)  # since 0.7
    if stop is None:
        jax.monitoring.clear_event_listeners()
    else:
        stop(listen)
