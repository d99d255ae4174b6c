"""The ntkest adapter for functions and modules of JAX."""

backend = None
