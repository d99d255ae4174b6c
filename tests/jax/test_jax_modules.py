"""Flax and Equinox modules: what is a parameter, what stays as it was, and how parameters are picked."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkest.linearization import InvalidValueError
from tests.jax.cases import BY_NAME, draw, linearize


def test_flax_and_equinox_are_imported_only_for_objects_of_theirs():
    code = """
        import sys, jax.numpy as jnp
        from ntkest_jax import backend
        from ntkest.linearization import Options
        backend.linearize(lambda p: jnp.sin(p), (jnp.ones(3),), {}, Options()).vjp(jnp.ones((1, 3)))
        assert not {"flax", "equinox"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


def lora():
    layer = {"lora_a": draw(0, 3, 2), "lora_b": draw(1, 2, 3), "w": draw(2, 3, 3)}
    params = {"first": layer, "head": draw(3, 3, 2)}

    def f(p, x):
        h = jnp.tanh(x @ p["first"]["w"] + x @ p["first"]["lora_a"] @ p["first"]["lora_b"])
        return h @ p["head"]

    return f, params, draw(4, 5, 3)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("*lora*", ("first.lora_a", "first.lora_b")),
        (["head"], ("head",)),
        ("first", ("first.lora_a", "first.lora_b", "first.w")),
        (lambda name: name.endswith("w"), ("first.w",)),
    ],
)
def test_chosen_parameters_have_the_columns_of_the_whole_jacobian(wanted, names):
    f, params, x = lora()
    whole, part = linearize(f, params, x), linearize(f, params, x, params=wanted)
    assert part.param_names == names
    eye = jnp.eye(10)
    columns = dict(zip(whole.param_names, whole.vjp(eye), strict=True))
    for name, rows in zip(names, part.vjp(eye), strict=True):
        np.testing.assert_allclose(rows, columns[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "glob", "count"), [("linen", "Dense_1", 2), ("nnx", "norm.*", 2), ("equinox", "*.bias", 2)]
)
def test_parameters_of_modules_are_picked_by_name(name, glob, count):
    pytest.importorskip({"equinox": "equinox"}.get(name, "flax"))
    assert len(BY_NAME[name].build().linearize(params=glob).params) == count


def test_an_nnx_module_is_unchanged_and_its_mode_is_its_own():
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net)))
    x = draw(0, 5, 3)
    J = linearize(net, x)  # train mode: statistics of the batch
    assert J.examples is None
    J.vjp(jnp.ones((1, 20)))
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    net.eval()
    assert linearize(net, x).examples == (0, 5)
    np.testing.assert_allclose(linearize(net, x).outputs, net(x), rtol=1e-5)


def test_an_nnx_module_is_a_pytree_of_parameters_with_shared_ones_once():
    pytest.importorskip("flax")
    built = BY_NAME["nnx"].build()
    J = linearize(lambda m, x: 2 * m(x), built.target, *built.args)
    assert set(J.param_names) == set(built.point)
    np.testing.assert_allclose(J.outputs, 2 * built.linearize().outputs, rtol=1e-5)


def test_a_later_update_of_an_nnx_module_does_not_reach_back():
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    x = draw(0, 5, 3)
    J = linearize(net, x)
    before = np.asarray(J.outputs)
    nnx.update(net, jax.tree.map(lambda a: 3 * a, nnx.state(net, nnx.Param)))
    np.testing.assert_array_equal(linearize(lambda m, x: m(x), net, x).outputs, net(x))
    np.testing.assert_allclose(J.at(net).outputs, net(x), rtol=1e-6)
    np.testing.assert_array_equal(J.outputs, before)


def test_a_bound_apply_of_linen_differentiates_the_collection_params_only():
    pytest.importorskip("flax")
    built = BY_NAME["linen"].build()
    J = linearize(built.target.apply, *built.args)
    assert set(J.param_names) == set(built.point)


def test_linen_without_its_variables_says_what_is_missing():
    pytest.importorskip("flax")
    built = BY_NAME["linen"].build()
    with pytest.raises(InvalidValueError, match="collection 'params'"):
        linearize(built.target, built.args[0]["params"], built.args[1])


def test_equinox_settings_are_constants_and_plain_floats_parameters():
    eqx = pytest.importorskip("equinox")

    class Scaled(eqx.Module):
        w: jax.Array
        rate: float

        def __call__(self, x):
            return self.rate * (x @ self.w)

    net, x = Scaled(draw(0, 3, 2), 0.5), draw(1, 4, 3)
    assert linearize(net, x).param_names == ("w",)
    J = linearize(lambda p, x: p["gain"] * p["net"](x), {"gain": 2.0, "net": net}, x)
    assert J.param_names == ("gain", "net.w")


def test_a_jitted_equinox_function_is_a_function():
    eqx = pytest.importorskip("equinox")
    J = linearize(eqx.filter_jit(lambda p, x: jnp.tanh(x @ p)), draw(0, 3, 2), draw(1, 4, 3))
    assert J.param_names == ("params",)
    assert J.examples == (0, 4)
