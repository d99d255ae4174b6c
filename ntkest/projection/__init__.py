"""Random projections of gradients: features whose inner products are those of the gradients, to a small error.

`streams` has the random bits; `matrices` and `sparse` have the matrices Q that come of them, a part at a time.
`sketches` adds up Qᵀφ from rows of gradients, which `pieces` makes a few columns at a time, `factored` from factors;
`blocks` takes the cheaper for each block of parameters. `backward` goes through the examples of a model, `forward`
through the columns of Q. `posing` chooses between them and `planning` cuts features into pieces, which are put together
in memory, or go to a store by `streaming`, or are tasks of a `farm` of workers. `features` is what users call, and
`gradients` for gradients that are there already.
"""

from .features import project
from .gradients import project_gradients

__all__ = ["project", "project_gradients"]
