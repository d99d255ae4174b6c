"""What tells one linearization from another: its parameters to the bit, its inputs by what comes of them.

A linearization does not hand out its inputs. Its outputs depend on them, and so does Jᵀω for signs ω (J v, where there
is no reverse mode), also where a readout that starts at zero makes all outputs alike. Both are kept as a few sums with
signs, and compared to rounding, since another number of threads may round in another way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..linearization import Linearization, adjoint_probes, checked_examples, eps, host, number, tolerance

SUMS = 32
"""Sums over outputs: a change of few examples shows in one of them."""

Fingerprint = Mapping[str, Any]
"""Plain numbers and text, ready for JSON."""


def fingerprint(J: Linearization) -> Fingerprint:
    """What `difference` compares. Costs one reverse pass, or forward where there is no reverse mode."""
    sums, scales = _sums(J)
    return {
        "parameters": digest(J),
        "outputs": list(J.outputs.shape),
        "axis": checked_examples(J.examples)[0],
        "dtype": str(host(J.outputs[(slice(0, 1),) * len(J.outputs.shape)]).dtype),
        "sums": sums,
        "scales": scales,
        "tolerance": tolerance(max(eps(J.xp, J.outputs, *J.params), float(getattr(J, "epsilon", 0.0)))),
    }


def digest(J: Linearization) -> str:
    """The parameters to the bit, with their names, shapes and dtypes, as a SHA-256."""
    parameters = hashlib.sha256()
    for name, block in zip(J.param_names, J.params, strict=True):
        values = np.ascontiguousarray(host(block))
        parameters.update(json.dumps([name, list(values.shape), str(values.dtype)]).encode())
        parameters.update(values.data)
    return parameters.hexdigest()


def difference(old: Fingerprint, new: Fingerprint) -> str | None:
    """What is not the same, in words; None if all is."""
    if old["outputs"] != new["outputs"] or old["axis"] != new["axis"]:
        return f"outputs have the shape {tuple(new['outputs'])}, there {tuple(old['outputs'])}"
    if old["dtype"] != new["dtype"]:
        return f"outputs are {new['dtype']}, there {old['dtype']}"
    if old["parameters"] != new["parameters"]:
        return "the parameters are others"
    bound = max(old["tolerance"], new["tolerance"])
    for a, b, scale in zip(old["sums"], new["sums"], old["scales"], strict=True):
        if not abs(a - b) <= bound * scale and not (math.isnan(a) and math.isnan(b)):
            return "the inputs are others, or the model computes something else with them"
    return None


def _sums(J: Linearization) -> tuple[list[float], list[float]]:
    """Sums of outputs and of Jᵀω with signs, and the size that rounding is measured by."""
    flat = host(J.outputs).astype(np.float64).ravel()
    outputs = np.pad(flat, (0, -len(flat) % SUMS)).reshape(-1, SUMS)
    signs = np.random.default_rng(23).choice([-1.0, 1.0], outputs.shape)
    sums, scales = list((signs * outputs).sum(0)), list(np.linalg.norm(outputs, axis=0))
    omega, tangents = adjoint_probes(J.xp, J.params, J.outputs)
    images, others = (J.vjp(omega), tangents) if "vjp" in J.modes else ((J.jvp(tangents),), (omega,))
    for image, v in zip(images, others, strict=True):
        size = number(J.xp.max(J.xp.abs(image)))
        sums.append(number(J.xp.sum(image * v)))
        scales.append(size * math.prod(image.shape) ** 0.5)
    return [float(a) for a in sums], [float(a) for a in scales]
