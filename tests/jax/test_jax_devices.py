"""Several devices: XLA is told to make four out of the host, which needs a process of its own."""

import os
import subprocess
import sys
import textwrap

PROLOGUE = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from ntkest_jax import backend
    from ntkest.linearization import DeviceMismatchError, Options
    assert len(jax.devices()) == 4
    f = lambda p, x: jnp.tanh(x @ p)
    draw = lambda *shape: jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)
    p, x, w = draw(6, 4), draw(8, 6), jnp.ones((3, 32))
    plain = backend.linearize(f, (p, x), {}, Options())
    assert plain.examples == (0, 8)
"""


def run(code):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    script = textwrap.dedent(PROLOGUE) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_sharded_parameters_and_inputs_give_the_same_numbers():
    run("""
        mesh = Mesh(np.array(jax.devices()), ("d",))
        split = NamedSharding(mesh, PartitionSpec("d"))
        columns = NamedSharding(mesh, PartitionSpec(None, "d"))
        J = backend.linearize(f, (jax.device_put(p, columns), jax.device_put(x, split)), {}, Options())
        assert J.examples == (0, 8)
        everywhere = jax.device_put(w, NamedSharding(mesh, PartitionSpec()))
        np.testing.assert_allclose(J.vjp(everywhere)[0], plain.vjp(w)[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(J.vjp(w)[0], plain.vjp(w)[0], rtol=1e-5, atol=1e-5)
    """)


def test_arrays_on_a_second_device_work_there_and_mixed_ones_say_so():
    run("""
        second = jax.devices()[1]
        p1, x1, w1 = (jax.device_put(a, second) for a in (p, x, w))
        J = backend.linearize(f, (p1, x1), {}, Options())
        found = J.vjp(w1)[0]
        assert found.devices() == {second}
        np.testing.assert_allclose(found, plain.vjp(w)[0], rtol=1e-6)
        try:
            J.vjp(jax.device_put(w, jax.devices()[2]))
        except DeviceMismatchError as error:
            assert "jax.device_put" in str(error)
        else:
            raise AssertionError("probes on a third device were taken")
        try:
            backend.linearize(f, (p1, jax.device_put(x, jax.devices()[2])), {}, Options())
        except DeviceMismatchError:
            pass
        else:
            raise AssertionError("inputs on a third device were taken")
    """)


def test_estimates_of_sharded_inputs_are_those_of_one_device():
    run("""
        import ntkest
        split = NamedSharding(Mesh(np.array(jax.devices()), ("d",)), PartitionSpec("d"))
        here, there = (ntkest.linearize(f, p, inputs) for inputs in (x, jax.device_put(x, split)))
        for method in ("exact", "reverse", "hutch++", "nystrom++", "xnystrace"):
            spent = {} if method == "exact" else {"passes": 40}
            wanted, found = (ntkest.effective_rank(J, method=method, **spent) for J in (here, there))
            np.testing.assert_allclose(float(found), float(wanted), rtol=1e-4)
    """)
