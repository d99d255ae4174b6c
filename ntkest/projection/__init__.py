"""Random projections of gradients: features whose inner products are those of the gradients, to a small error.

`streams` has the random bits and `matrices` and `sparse` the matrices Q that come of them, a part at a time. `sketches`
adds up Qᵀφ from rows of gradients, which `pieces` makes a few columns at a time, and `factored` from their factors.
`backward` goes through the examples of a model and `forward` through the columns of Q; `features` chooses between them
and is what users call. `gradients` is for gradients that are there already.
"""

from .features import project
from .gradients import project_gradients

__all__ = ["project", "project_gradients"]
