"""The ntkest adapter for modules and functions of PyTorch."""

from .adapter import TorchBackend

backend = TorchBackend()

__all__ = ["TorchBackend", "backend"]
