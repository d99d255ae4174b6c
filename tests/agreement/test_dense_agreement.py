"""The same explicit Jacobian gives the same images in every namespace, to rounding."""

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import ntkest

NAMESPACES = {
    "array_api_strict": array_api_strict.asarray,
    "torch": torch.asarray,
    "jax": jnp.asarray,
}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("chunk", [None, 3])
def test_images_and_scale_equal_those_of_numpy(namespace, chunk):
    draw = np.random.default_rng(0)
    A = {name: draw.standard_normal((8, size)).astype(np.float32) for name, size in (("w", 5), ("b", 2))}
    omega = np.sign(draw.standard_normal((7, 8))).astype(np.float32)
    v = tuple(np.sign(draw.standard_normal((7, size))).astype(np.float32) for size in (5, 2))
    convert = NAMESPACES[namespace]

    reference = ntkest.from_jacobian(A)
    J = ntkest.from_jacobian({name: convert(block) for name, block in A.items()})
    assert J.exponent == reference.exponent
    images = J.map_jvp(lambda image: image, tuple(map(convert, v)), chunk=chunk)
    pulled = J.map_vjp(lambda blocks: blocks, convert(omega), chunk=chunk)
    np.testing.assert_allclose(np.asarray(images), reference.jvp(v), rtol=1e-5, atol=1e-5)
    for found, wanted in zip(pulled, reference.vjp(omega), strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-5)
