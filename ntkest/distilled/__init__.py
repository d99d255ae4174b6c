"""The distilled NTK: class kernels from few points, few dimensions and few directions.

`source` linearizes a model on any inputs, the data stage chooses or makes points, `ntkest.project` gives their tangent
features, compression combines points into few, and ridge regression predicts with these. `pipeline` does it all, and
`result` is what comes of it, with a `ledger` of what it cost.

Reference: "Distilled neural tangent kernels": data, parameters and gradients are redundant, each in its own way.
"""

from .pipeline import distill, distill_features
from .result import DistilledNTK
from .scores import Scores

__all__ = ["DistilledNTK", "Scores", "distill", "distill_features"]
