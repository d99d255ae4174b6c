"""Which examples stand for the others: the same number of each class, chosen by the kernel among them.

All methods but "uniform" look at one kernel a class, that of its examples with each other. Of tangent features
(m, O, k) it is the mean class kernel K̄ = mean_c Φ_cΦ_cᵀ, whose distances are those between whole Jacobians:
‖J_n - J_n'‖² = O (K̄_nn - 2 K̄_nn' + K̄_n'n'). Other features serve too, such as inputs or hidden layers as (m, 1, k).

==============  ===============================================================================================
``"uniform"``     at random
``"kmeans"``      the example nearest to each centre of k-means (Lloyd 1982; Arthur and Vassilvitskii 2007)
``"farthest"``    each time the one farthest from all before, from a random one on (Gonzalez 1985)
``"leverage"``    at random by ridge leverage scores, λ so that they sum to the count (Alaoui and Mahoney 2015)
``"rpcholesky"``  the pivots of randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber 2023)
==============  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from ...linearization import InvalidValueError
from ...predict import pivoted_cholesky
from ...predict.pivoted import take_rows
from .centres import clusters, nearest_members
from .problem import as_features, as_labels, check_classes, mean_kernel_of


def select(
    features: Any, count: int, labels: Any, method: str = "kmeans", seed: int = 0, *, classes: int | None = None
) -> np.ndarray:
    """Choose `count` examples of each class.

    Parameters
    ----------
    features : array (m, O, k) or (m, k)
        Tangent features, or any others.
    count : int
        How many of each class.
    labels : array or sequence (m,)
        Integers from 0.
    method : "uniform", "kmeans", "farthest", "leverage" or "rpcholesky"
    seed : int
    classes : int, optional
        How many there are; default: one more than the largest label.

    Returns
    -------
    numpy.ndarray (classes · count,)
        Indices, class after class. For a class of n examples the kernel costs n²·O·k multiplications, and what is
        done with it n³ at most, on the host.

    Raises
    ------
    InvalidTypeError, ShapeError
    InvalidValueError
        A class has no examples, or fewer than `count`; the method is unknown.
    NonFiniteError
        Features of some examples, which it names, are NaN or infinite.
    """
    features = as_features(features)
    known = as_labels(labels, features.shape[0])
    found = check_classes(known, count, classes)
    xp = array_api_compat.array_namespace(features)

    def kernel(label: int) -> np.ndarray:
        return mean_kernel_of(take_rows(xp, features, np.flatnonzero(known == label)))

    return select_by(kernel, count, known, found, method, seed)


def select_by(
    kernel: Callable[[int], np.ndarray], count: int, labels: np.ndarray, classes: int, method: str, seed: int
) -> np.ndarray:
    """`select`, from a function that gives the kernel among the examples of a class."""
    choose = checked(method)
    chosen = []
    for label in range(classes):
        members, draw = np.flatnonzero(labels == label), np.random.default_rng([seed, label])
        if choose is None:
            chosen.append(draw.choice(members, count, replace=False))
        else:
            chosen.append(members[choose(kernel(label), count, draw)])
    return np.concatenate(chosen)


def checked(method: str) -> Callable[[np.ndarray, int, np.random.Generator], np.ndarray] | None:
    """The function for a method; None for "uniform", which looks at nothing."""
    if method == "uniform":
        return None
    if method not in CHOICES:
        raise InvalidValueError(f"method= takes 'uniform', {', '.join(map(repr, CHOICES))}, not {method!r}")
    return CHOICES[method]


def nearest_to_centres(K: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """The example nearest to each centre of k-means."""
    return nearest_members(K, clusters(K, count, draw))


def farthest(K: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """From a random example on, each time the one whose nearest chosen one is farthest."""
    chosen = [int(draw.integers(len(K)))]
    diagonal, nearest = np.diagonal(K), np.full(len(K), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        nearest = np.minimum(nearest, diagonal - 2 * K[last] + K[last, last])
        nearest[chosen] = -np.inf
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def by_leverage(K: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Without replacement, with probabilities proportional to ridge leverage scores."""
    scores = leverage_scores(K, count)
    return draw.choice(len(K), count, replace=False, p=scores / scores.sum())


def leverage_scores(K: np.ndarray, count: int) -> np.ndarray:
    """Diagonal of K(K + λI)⁻¹ for the λ with which it sums to `count`; for the least λ if the rank of K is less."""
    values, vectors = np.linalg.eigh(K)
    values = np.maximum(values, 0)
    if not values[-1] > 0:
        return np.ones(len(K))
    low, high = np.log(values[-1]) - 36, np.log(values[-1]) + np.log(len(K)) + 1
    for _ in range(60):  # λ by bisection of its logarithm: the sum falls from the rank of K to less than one
        middle = (low + high) / 2
        low, high = (middle, high) if (values / (values + np.exp(middle))).sum() > count else (low, middle)
    return np.asarray(vectors**2 @ (values / (values + np.exp(low)))) + np.finfo(float).tiny


def pivots(K: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """The pivots of randomly pivoted Cholesky, and others at random where the rank of K is less."""
    found = np.zeros(0, dtype=int)
    if K.any():
        found = pivoted_cholesky(K, count, block=1, seed=int(draw.integers(2**31))).pivots
    others = draw.permutation(np.setdiff1d(np.arange(len(K)), found))
    return np.concatenate([found, others[: count - len(found)]])


def left_by(K: np.ndarray, chosen: np.ndarray) -> float:
    """tr(K - K_·s K_ss⁺ K_s·): how much of K the columns of some examples leave, to rounding."""
    columns = K[:, chosen]
    caught = np.linalg.lstsq(K[np.ix_(chosen, chosen)], columns.T, rcond=1e-10)[0]
    return float(np.trace(K) - np.sum(columns.T * caught))


CHOICES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "kmeans": nearest_to_centres,
    "farthest": farthest,
    "leverage": by_leverage,
    "rpcholesky": pivots,
}
"""From a kernel (n, n), a count and a generator to indices (count,)."""
