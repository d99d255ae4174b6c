"""The ntkest adapter for functions written with HIPS autograd (``import autograd.numpy as np``)."""

from .adapter import NumpyBackend, NumpyLinearization

backend = NumpyBackend()

__all__ = ["NumpyBackend", "NumpyLinearization", "backend"]
