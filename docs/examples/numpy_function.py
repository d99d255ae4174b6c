"""A function of NumPy arrays, differentiated by HIPS autograd: kernels of wide networks at random weights agree.

Two networks of the same shape with different random weights have different kernels. As the width grows, both come
closer to the same limit, and so to each other. We watch that on 60 patients of scikit-learn's diabetes data.

    python numpy_function.py
"""

import autograd.numpy as anp
import numpy as np
from sklearn.datasets import load_diabetes

import ntkest

patients = load_diabetes().data[:60]
patients = patients / patients.std(axis=0)


def predict(params, x):
    """One number a patient. `autograd.numpy` in place of `numpy` is all that the adapter asks for."""
    hidden = anp.tanh(anp.dot(x, params["hidden"]))
    return anp.dot(hidden, params["head"])


def weights(width, seed):
    draw = np.random.default_rng(seed)
    features = patients.shape[1]
    return {
        "hidden": draw.standard_normal((features, width)) / np.sqrt(features),
        "head": draw.standard_normal(width) / np.sqrt(width),
    }


agreement = []
print("width  parameters  alignment of two random networks")
for width in (8, 64, 512):
    J = ntkest.linearize(predict, weights(width, seed=0), patients)
    other = J.at(weights(width, seed=1))
    estimate = ntkest.alignment(J, other, rtol=0.01)
    print(f"{width:5}  {sum(p.size for p in J.params):10}  {float(estimate):.4f}  ({estimate.method})")
    agreement.append(float(estimate))
assert agreement == sorted(agreement)
assert agreement[-1] > 0.98

# 60 outputs are so few that exact answers cost two times 60 passes. The estimate above took fewer, and its interval
# holds the exact value.
exact = ntkest.alignment(J, other, method="exact")
print(f"exactly {float(exact):.6f} by {exact.passes} passes; estimated {estimate}")
assert exact.passes == 120 > estimate.passes
low, high = estimate.interval(0.999)
assert low <= float(exact) <= high

# The trace is a sum over parameters, so each layer has its share of it.
trace = ntkest.trace(J, by="layer")
for name, part in trace.parts.items():
    print(f"{name}: {float(part) / float(trace):.1%} of the trace")
assert np.isclose(sum(float(part) for part in trace.parts.values()), float(trace))
