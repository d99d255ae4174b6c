"""New inputs whose features are the Wasserstein barycentre of those of their class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...linearization import Array, beside, number, value_and_gradient
from ...predict.pivoted import take_rows
from ...progress import progress_of
from .adam import Adam
from .centres import clusters, nearest_members, shares
from .descent import descend
from .matching import Matching, Wanted, image_axes
from .problem import Points, Problem, check_movable, mean_kernel_of
from .views import looked, view_of

LOOK = 10
"""Steps between looks at the objective."""


@dataclass(frozen=True)
class Wasserstein:
    """New inputs whose features are the atoms of a barycentre of each class; a data stage.

    The features of a class are a measure, and the free-support Wasserstein barycentre of one measure with `count` atoms
    is what k-means finds, with the share of each cluster as the weight of its atom. Inputs start from the examples
    nearest to the atoms, and Adam(0.5, 0.9) with a cosine moves them; see `matching.Matching` for down what. The
    objective never ends higher than it began.

    Parameters
    ----------
    features : callable, optional
        From inputs (n, …) to features (n, …), written in the model's framework. By default what the last dense layer
        is given, in a module of PyTorch; elsewhere the outputs of the model. `Points.notes` says which.
    steps : int
    rate : float
        How far an input moves in a step, as a share of the standard deviation of all inputs.
    norms : float
        λ_BN, of the statistics of what each batch norm of a PyTorch module is given; other models have none that could
        be seen, and `Points.notes` says so.
    variation : float
        λ_TV, in the unit of the inputs, of images only: inputs (N, C, H, W) or (N, H, W, C).
    bounds : (float, float), optional
        Inputs are kept between them.

    References
    ----------
    Liu et al., "Dataset distillation via the Wasserstein metric", 2023 (arXiv 2311.18531); Cuturi and Doucet, "Fast
    computation of Wasserstein barycenters", ICML 2014.
    """

    features: Callable[[Array], Array] | None = None
    steps: int = 300
    rate: float = 0.05
    norms: float = 0.1
    variation: float = 0.01
    bounds: tuple[float, float] | None = None

    def __call__(self, problem: Problem) -> Points:
        """New points, `problem.count` of each class: one forward an example, and three passes a point and step.

        Raises
        ------
        UnsupportedModeError
            The adapter does not differentiate through models, as that for NumPy.
        NonDifferentiableError
            Inputs are integers.
        ShapeError
            `features` does not give one row an example.
        """
        check_movable(problem)
        xp = problem.xp
        view, notes = view_of(problem, self.features, self.norms > 0)
        matching = Matching(view, self.norms, self.variation, image_axes(tuple(problem.inputs.shape)))
        evaluated = value_and_gradient(matching, problem.target, problem.before, problem.options.get("backend"))
        seen = looked(problem, view)
        found = barycentres(problem, seen.features)
        wanted = Wanted(found.atoms, beside(xp, found.spread, found.atoms), seen.moments)
        best, history = descend(
            (problem.at(found.nearest),),
            lambda arrays, i: evaluated(arrays, wanted)[1],
            lambda arrays: number(evaluated(arrays, wanted)[0]),
            Adam(self.rate, self.steps, (0.5, 0.9)),
            (number(xp.std(problem.inputs)),),
            look=LOOK,
            bounds=self.bounds,
            report=progress_of(problem.progress, "steps"),
        )
        evaluations = self.steps + len(history)
        return Points(
            inputs=best[0],
            labels=problem.labels[found.nearest],
            weights=found.weights,
            passes=len(problem.labels) + 3 * evaluations * len(found.nearest),
            history=history,
            notes=notes,
        )


class Barycentres(NamedTuple):
    """Of all classes, one after the other."""

    nearest: np.ndarray
    """(m,): the example nearest to each atom."""
    weights: np.ndarray
    """(m,): of the atoms; they sum to 1 in each class."""
    atoms: Array
    """(m, d): features."""
    spread: float
    """The mean squared distance of an example's features from the mean of its class; 1 if they are all the same."""


def barycentres(problem: Problem, features: Array) -> Barycentres:
    """Of the features (N, d) of each class, with `problem.count` atoms; n²·d multiplications for n examples."""
    xp = problem.xp
    nearest, weights, atoms, spreads = [], [], [], []
    for label in range(problem.classes):
        members = np.flatnonzero(problem.labels == label)
        own = take_rows(xp, features, members)
        K = mean_kernel_of(own[:, None, :])
        owner = clusters(K, problem.count, np.random.default_rng([problem.seed, label]))
        nearest.append(members[nearest_members(K, owner)])
        weights.append(np.bincount(owner) / len(members))
        atoms.append(beside(xp, shares(owner), own) @ own)
        spreads.append(np.diagonal(K).mean() - K.mean())
    spread = float(np.mean(spreads))
    return Barycentres(
        np.concatenate(nearest), np.concatenate(weights), xp.concat(atoms, axis=0), spread if spread > 0 else 1.0
    )
