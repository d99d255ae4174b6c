"""The ntkest adapter for functions written with HIPS autograd."""

backend = None
