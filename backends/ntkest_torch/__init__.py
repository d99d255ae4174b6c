"""The ntkest adapter for modules and functions of PyTorch."""

import array_api_compat.torch as xp

from ntkest.linearization import provide_row_products

from .adapter import TorchBackend
from .products import row_products

backend = TorchBackend()

provide_row_products(xp, row_products)

__all__ = ["TorchBackend", "backend"]
