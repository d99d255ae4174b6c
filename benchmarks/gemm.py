"""The machine's matrix-multiply rate, in each framework."""

from __future__ import annotations

from collections.abc import Callable

SIZE = 1024
FLOPS = 2 * SIZE**3


def torch_product() -> Callable[[int], None]:
    """A float32 product of two square matrices in torch."""
    import torch

    a, b, out = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE), torch.empty(SIZE, SIZE)

    def call(seed: int) -> None:
        torch.mm(a, b, out=out)

    return call


def jax_product() -> Callable[[int], None]:
    """A float32 product of two square matrices in jax."""
    import jax

    a, b = (jax.random.normal(jax.random.key(k), (SIZE, SIZE)) for k in range(2))
    product = jax.jit(lambda a, b: a @ b)

    def call(seed: int) -> None:
        product(a, b).block_until_ready()

    return call


PRODUCTS = {"torch": torch_product, "jax": jax_product}
