"""The ntkest adapter for modules and functions of PyTorch."""

backend = None
