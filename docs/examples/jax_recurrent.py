"""The kernel of all states that a recurrent network passes through, in JAX, on three centuries of sunspots.

Sixteen windows of fifty years drive a network of 64 units. Its outputs are the whole trajectories, 16 × 50 × 64 =
51,200 numbers, so K = J Jᵀ has 2.6 billion entries. The network has 4,224 parameters. Here forward mode is at home: a
tangent has 4,224 numbers, and its image is what running the network along with its derivative gives.

    python jax_recurrent.py
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from statsmodels.datasets import sunspots

import ntkest

N, T, H = 16, 50, 64

# Yearly sunspot numbers from 1700 to 2008. The square root evens out their spread; the cycle takes about 11 years.
series = np.sqrt(sunspots.load_pandas().data["SUNACTIVITY"].to_numpy())
series = (series - series.mean()) / series.std()
starts = np.arange(N) * 17
windows = jnp.asarray(series[starts[:, None] + np.arange(T)], dtype=jnp.float32)  # (N, T)


def trajectories(params, windows):
    """States (N, T, H) of h ← tanh(W h + u x + b)."""

    def step(state, x):
        state = jnp.tanh(state @ params["recurrent"] + x[:, None] * params["input"] + params["bias"])
        return state, state

    _, states = jax.lax.scan(step, jnp.zeros((windows.shape[0], H)), windows.T)
    return jnp.swapaxes(states, 0, 1)


def network(gain):
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "recurrent": gain * jax.random.normal(keys[0], (H, H)) / np.sqrt(H),
        "input": jax.random.normal(keys[1], (H,)),
        "bias": 0.1 * jax.random.normal(keys[2], (H,)),
    }


J = ntkest.linearize(trajectories, network(0.8), windows)
assert J.outputs.shape == (N, T, H)

# Both modes estimate the same numbers, from different sides. At the same number of passes they need not be equally
# precise; which one is, depends on how evenly the trace is spread over outputs, or over parameters.
print(f"{'':16}{'reverse':>22}{'forward':>22}")
for quantity in (ntkest.trace, ntkest.frobenius_norm, ntkest.effective_rank):
    reverse, forward = (quantity(J, method=method, passes=128) for method in ("reverse", "forward"))
    cells = (f"{float(e):12.5g} ± {float(e.std_error):7.2g}" for e in (reverse, forward))
    print(f"{quantity.__name__:16}" + "".join(cells))
    assert (reverse.n_vjp, reverse.n_jvp) == (128, 0)
    assert (forward.n_vjp, forward.n_jvp) == (0, 128)
    gap = abs(float(reverse) - float(forward))
    assert gap < 4 * np.hypot(float(reverse.std_error), float(forward.std_error))

# All 51,200 outputs move along few directions, and the stronger the recurrence, the fewer they are.
print("gain   trace        effective rank")
ranks = []
for gain in (0.4, 0.8, 1.2):
    found = ntkest.summary(J.at(network(gain)), method="forward", passes=128)  # at() compiles nothing anew
    trace, rank = found["trace"], found["effective_rank"]
    low, high = rank.interval()
    print(f"{gain:.1f}  {float(trace):12.5g}  {float(rank):8.1f}  (95 %: {low:.1f} … {high:.1f})")
    ranks.append(rank)
assert float(ranks[0]) < 100
assert all(a.interval()[0] > b.interval()[1] for a, b in pairwise(ranks))
