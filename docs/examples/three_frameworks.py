"""The same small network in NumPy, PyTorch and JAX, and as an explicit Jacobian: the same numbers.

Probes come from one counter-based generator and not from a framework, so the same weights, inputs and seed
give the same estimates, and not just estimates of the same thing. The four columns agree to rounding.

    python three_frameworks.py
"""

import autograd.numpy as anp
import jax
import jax.numpy as jnp
import numpy as np
import torch

import ntkest

jax.config.update("jax_enable_x64", True)  # else JAX rounds to float32, and the digits agree only that far

draw = np.random.default_rng(0)
inputs = draw.standard_normal((20, 16))
labels = np.arange(20) % 5
# In alphabetical order, into which JAX puts the keys of every dict: tangent probes go by a block's place.
weights = {"bias": draw.standard_normal(32), "head": np.eye(32, 5), "hidden": draw.standard_normal((16, 32)) / 4}


def network(tanh):
    return lambda p, x: tanh(x @ p["hidden"] + p["bias"]) @ p["head"]


linearizations = {
    "numpy": ntkest.linearize(network(anp.tanh), weights, inputs),
    "torch": ntkest.linearize(
        network(torch.tanh), {k: torch.tensor(w) for k, w in weights.items()}, torch.tensor(inputs)
    ),
    "jax": ntkest.linearize(network(jnp.tanh), {k: jnp.asarray(w) for k, w in weights.items()}, jnp.asarray(inputs)),
}
targets = {"numpy": labels, "torch": torch.tensor(labels), "jax": jnp.asarray(labels), "explicit": labels}

# The Jacobian itself, by hand, in blocks of the same order.
hidden = np.tanh(inputs @ weights["hidden"] + weights["bias"])
slope = (1 - hidden**2)[:, None, :] * weights["head"].T[None]  # (N, O, H)
blocks = {
    "bias": slope.reshape(100, 32),
    "head": (hidden[:, None, :, None] * np.eye(5)[None, :, None, :]).reshape(100, 32 * 5),
    "hidden": (inputs[:, None, :, None] * slope[:, :, None, :]).reshape(100, 16 * 32),
}
linearizations["explicit"] = ntkest.from_jacobian(blocks, output_shape=(20, 5))
assert all(J.param_names == ("bias", "head", "hidden") for J in linearizations.values())

print(f"{'':26}" + "".join(f"{name:>20}" for name in linearizations))
for method in ("exact", "reverse", "forward", "hutch++"):
    found = [ntkest.summary(J, targets[name], method=method, passes=60, seed=7) for name, J in linearizations.items()]
    for quantity, reference in found[0].items():
        column = [summary[quantity] for summary in found]
        print(f"{method:10}{quantity:16}" + "".join(f"{float(e):20.14g}" for e in column))
        np.testing.assert_allclose([float(e) for e in column], float(reference), rtol=1e-9)
        np.testing.assert_allclose([float(e.std_error) for e in column], float(reference.std_error), rtol=1e-6)
        np.testing.assert_allclose([e.interval() for e in column], [reference.interval()] * 4, rtol=1e-6)
        # exact values are had from fewer passes where a framework's adapter sees through the layers
        assert len({e.passes for e in column}) == 1 or method == "exact"
