"""Small models with Jacobians in closed form, in plain NumPy: what an adapter is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

Params = Mapping[str, Any]
"""Parameter arrays by name."""


@dataclass(frozen=True)
class Case:
    """A model f(params, x), given as data, as a formula and as a Jacobian.

    Attributes
    ----------
    name : str
        What it tests.
    params : dict of str to numpy.ndarray
        Parameters by name, the names that ``param_names`` must have (in any order).
    inputs : numpy.ndarray
        The one input x.
    function : callable
        ``function(xp, params, x)``: the model, in any namespace `xp` with ``tanh``, ``stack``, ``sum`` and ``mean``, on
        arrays with operators; an adapter's author may write the model anew instead.
    closed_form : callable
        ``closed_form(params, x)``: the Jacobian in NumPy, (M, P_l) by name.
    axis : int or None
        The axis of x and of the outputs that runs over examples; None where examples interact or have no axis.
    """

    name: str
    params: dict[str, np.ndarray]
    inputs: np.ndarray
    function: Callable[[ModuleType, Params, Any], Any]
    closed_form: Callable[[Params, np.ndarray], dict[str, np.ndarray]]
    axis: int | None = 0

    def outputs(self) -> np.ndarray:
        """f(params, x) in float64."""
        return np.asarray(self.function(np, self._wide(), self.inputs.astype(np.float64)))

    def jacobian(self) -> dict[str, np.ndarray]:
        """The closed form in float64, one (M, P_l) a parameter, in the order of `params`."""
        blocks = self.closed_form(self._wide(), self.inputs.astype(np.float64))
        rows = self.outputs().size
        return {name: np.reshape(blocks[name], (rows, -1)) for name in self.params}

    def example(self, index: int) -> Case:
        """The same model on one example alone."""
        if self.axis is None:
            raise ValueError(f"the case {self.name!r} has no axis of examples")
        return replace(self, inputs=np.take(self.inputs, [index], axis=self.axis))

    def _wide(self) -> dict[str, np.ndarray]:
        return {name: array.astype(np.float64) for name, array in self.params.items()}


def cases(dtype: str = "float32", seed: int = 0) -> list[Case]:
    """The cases that `check_backend` runs, in `dtype`."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    def linear_params(inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {"bias": draw(outputs), "weight": draw(outputs, inputs)}

    two_layers = {"bias1": draw(4), "bias2": draw(2), "weight1": draw(4, 3), "weight2": draw(2, 4)}
    transition = {"readin": draw(3, 2), "recurrent": (0.5 * draw(3, 3)).astype(dtype)}
    return [
        Case("linear", linear_params(4, 3), draw(5, 4), _linear, _linear_jacobian),
        Case("two layers", two_layers, draw(5, 3), _tanh_net, _tanh_net_jacobian),
        Case(
            "ignored parameter",
            {**linear_params(4, 3), "ignored": draw(2, 3)},
            draw(5, 4),
            _linear,
            lambda p, x: {**_linear_jacobian(p, x), "ignored": np.zeros((3 * len(x), 6))},
        ),
        Case("trajectories", transition, draw(6, 4, 2), _recurrent, _recurrent_jacobian, axis=1),
        Case("scalar output", {"weight": draw(2, 3)}, draw(5, 3), _energy, _energy_jacobian, axis=None),
        Case("interacting examples", linear_params(4, 3), draw(5, 4), _centred, _centred_jacobian, axis=None),
    ]


def _linear(xp: ModuleType, p: Params, x: Any) -> Any:
    return x @ p["weight"].T + p["bias"]


def _linear_jacobian(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    same = np.eye(len(p["bias"]))
    return {"bias": np.tile(same, (len(x), 1)), "weight": np.einsum("op,ni->nopi", same, x)}


def _tanh_net(xp: ModuleType, p: Params, x: Any) -> Any:
    return xp.tanh(x @ p["weight1"].T + p["bias1"]) @ p["weight2"].T + p["bias2"]


def _tanh_net_jacobian(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    hidden = np.tanh(x @ p["weight1"].T + p["bias1"])
    inner = np.einsum("oj,nj->noj", p["weight2"], 1 - hidden**2)  # ∂y/∂(pre-activation), (N, O, H)
    outer = _linear_jacobian({"bias": p["bias2"]}, hidden)
    weight1 = np.einsum("noj,ni->noji", inner, x)
    return {"bias1": inner, "bias2": outer["bias"], "weight1": weight1, "weight2": outer["weight"]}


def _recurrent(xp: ModuleType, p: Params, x: Any) -> Any:
    """States (T, N, H) of h ← tanh(h Aᵀ + x_t Bᵀ) from h = 0."""
    state, states = xp.tanh(x[0] @ p["readin"].T), []
    for t in range(x.shape[0]):
        if t > 0:
            state = xp.tanh(state @ p["recurrent"].T + x[t] @ p["readin"].T)
        states.append(state)
    return xp.stack(states)


def _recurrent_jacobian(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    """Forward sensitivities: ∂h/∂A and ∂h/∂B are carried along with h."""
    A, B = p["recurrent"], p["readin"]
    same = np.eye(len(A))
    h = np.zeros((x.shape[1], len(A)))
    by_A, by_B = np.zeros((*h.shape, *A.shape)), np.zeros((*h.shape, *B.shape))
    all_A, all_B = [], []
    for x_t in x:
        new = np.tanh(h @ A.T + x_t @ B.T)
        slope = (1 - new**2)[:, :, None, None]
        by_A = slope * (np.einsum("jk,nkab->njab", A, by_A) + np.einsum("ja,nb->njab", same, h))
        by_B = slope * (np.einsum("jk,nkab->njab", A, by_B) + np.einsum("ja,nb->njab", same, x_t))
        h = new
        all_A.append(by_A)
        all_B.append(by_B)
    return {"readin": np.stack(all_B), "recurrent": np.stack(all_A)}


def _energy(xp: ModuleType, p: Params, x: Any) -> Any:
    return xp.sum(xp.tanh(x @ p["weight"].T) ** 2)


def _energy_jacobian(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    hidden = np.tanh(x @ p["weight"].T)
    return {"weight": (2 * hidden * (1 - hidden**2)).T @ x}


def _centred(xp: ModuleType, p: Params, x: Any) -> Any:
    return _linear(xp, p, x - xp.mean(x, axis=0))


def _centred_jacobian(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    return _linear_jacobian(p, x - x.mean(axis=0))
