"""From a fresh interpreter to a trace: ``python -m benchmarks.first_result FRAMEWORK``. Prints seconds as JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

BACKENDS = ("numpy", "torch", "jax")


def main(framework: str) -> None:
    """Time every step of a trace of the MLP."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    __import__("autograd.numpy" if framework == "numpy" else framework)
    mark()
    import ntkest

    mark()
    target = model(framework)
    mark()
    J = ntkest.linearize(*target)
    mark()
    float(ntkest.trace(J, method="reverse", passes=32))
    mark()
    steps = ("framework", "ntkest", "model", "linearize", "trace")
    taken = [after - before for before, after in itertools.pairwise(marks)]
    print(json.dumps({**dict(zip(steps, taken, strict=True)), "total": marks[-1] - marks[0]}))


def model(framework: str) -> tuple[Any, ...]:
    """The arguments of `linearize` for the MLP."""
    if framework == "torch":
        from .models_torch import mlp

        module, x, _ = mlp()
        return module, x
    if framework == "jax":
        from .models_jax import mlp as jax_mlp

        net = jax_mlp()
        return net.function, net.params, net.x
    return numpy_mlp()


def numpy_mlp() -> tuple[Any, ...]:
    """The MLP as a function of autograd.numpy."""
    import autograd.numpy as anp
    import numpy as np

    from .cases import MLP

    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = [
        (draw(i, o) * np.float32((2 / i) ** 0.5), np.zeros(o, np.float32))
        for i, o in zip(MLP.widths, MLP.widths[1:], strict=False)
    ]

    def function(params: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = anp.maximum(x @ w + b, 0)
        return x @ params[-1][0] + params[-1][1]

    return function, params, draw(MLP.batch, MLP.widths[0])


if __name__ == "__main__":
    main(sys.argv[1])
