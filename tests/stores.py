"""What tests of stores and of workers share."""

import hashlib
from pathlib import Path

import numpy as np

FACTORY = """
import os
import time
import numpy as np
import ntkest

A = np.random.default_rng(0).standard_normal((60, 40))


def make():
    return ntkest.from_jacobian({"a.w": A[:, :25], "b": A[:, 25:]}, output_shape=(20, 3))


def some():
    return ntkest.from_jacobian({"a.w": A[:12, :25], "b": A[:12, 25:]}, output_shape=(4, 3))


def unseeded():
    A = np.random.default_rng().standard_normal((60, 40))
    return ntkest.from_jacobian(A, output_shape=(20, 3))


def dies():
    os._exit(1)


def interacting():
    return ntkest.from_jacobian(A)


class Slow:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def uses(self, *arguments):
        time.sleep(0.1)
        return self.inner.uses(*arguments)


def slow():
    return Slow(make())
"""
"""Of linearizations, as a file that workers import."""

A = np.random.default_rng(0).standard_normal((60, 40))
"""The Jacobian that they make."""


def files(path):
    """Every file under `path`, and a hash of it."""
    found = sorted(p for p in Path(path).rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


class StoppedError(Exception):
    pass


def stop_after(count):
    def report(done, total):
        if done >= count:
            raise StoppedError

    return report
