"""What tests of stores and of workers share."""

import hashlib
import itertools
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor
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


class Turns(Executor):
    """Executors that take tasks in turns."""

    def __init__(self, *executors):
        self._next = itertools.cycle(executors)

    def submit(self, *arguments, **keywords):
        return next(self._next).submit(*arguments, **keywords)


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


PROGRAM = """
import sys
import numpy as np
import ntkest

A = np.random.default_rng(0).standard_normal((600, 2000))
J = ntkest.from_jacobian(A, output_shape=(200, 3))
print("ready", flush=True)
"""


def killed_and_whole(folder, call):
    """Check that a call of J that writes to `sys.argv[1]` ends with the same bytes if it is killed now and then."""
    program = folder / "program.py"
    program.write_text(PROGRAM + call + "\n")
    command = [sys.executable, str(program)]
    subprocess.run([*command, str(folder / "whole.zarr")], check=True, stdout=subprocess.DEVNULL)
    draw, killed = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen([*command, str(folder / "part.zarr")], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert killed > 0
    subprocess.run([*command, str(folder / "part.zarr")], check=True, stdout=subprocess.DEVNULL)
    assert files(folder / "part.zarr") == files(folder / "whole.zarr")
