"""The data stage: points that stand for a data set, chosen from it or made anew.

`problem` says what is given and what is wanted, `stages` are the ways by name: `selection` takes points that are there,
`wasserstein` makes some whose features are spread alike, and `tuning` makes some whose tangent features say the most.
"""

from .problem import Points, Problem
from .stages import Identity, Selection, Stage
from .tuning import Tuned
from .wasserstein import Wasserstein

__all__ = ["Identity", "Points", "Problem", "Selection", "Stage", "Tuned", "Wasserstein"]
