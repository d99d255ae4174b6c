"""What the kernels are to reach."""

from __future__ import annotations

from typing import NamedTuple


class Goal(NamedTuple):
    """A bound for the time of ntkest over the floor's, or for a ratio to contestants whose names start alike."""

    network: str
    kind: str
    framework: str
    against: str
    """The word floor, or how the names start; the quickest of them counts."""
    bound: float
    least: bool
    """Their time over ours is to be at least that; otherwise ours over theirs at most."""

    @property
    def text(self) -> str:
        """In words."""
        if self.against == "floor":
            return "ours over the floor"
        named = {"": "the best peer", "neural-tangents": "the best of neural-tangents"}
        who = "its passes" if self.kind == "trace" else named.get(self.against, self.against)
        return f"{who} over ours" if self.least else f"ours over {who}"


GOALS = (
    Goal("mlp", "pntk", "torch", "nngeometry", 1.7, True),
    Goal("mlp", "pntk", "jax", "neural-tangents", 1.0, True),
    Goal("mlp", "full", "torch", "nngeometry", 6.0, True),
    Goal("mlp", "full", "jax", "neural-tangents", 1.5, True),
    Goal("convnet", "pntk", "torch", "", 1.0, True),
    Goal("convnet", "pntk", "jax", "", 1.0, True),
    Goal("convnet", "full", "torch", "", 1.4, True),
    Goal("convnet", "full", "jax", "", 1.4, True),
    Goal("mlp", "pntk", "torch", "floor", 1.7, False),
    Goal("mlp", "full", "torch", "floor", 1.7, False),
    Goal("convnet", "pntk", "torch", "floor", 2.0, False),
    Goal("convnet", "full", "torch", "floor", 1.7, False),
    Goal("mlp", "pntk", "jax", "floor", 1.7, False),
    Goal("mlp", "full", "jax", "floor", 1.7, False),
    Goal("convnet", "pntk", "jax", "floor", 4.0, False),
    Goal("convnet", "full", "jax", "floor", 2.3, False),
    Goal("classifier", "trace", "torch", "torch", 1.5, False),
    Goal("classifier", "trace", "jax", "jax", 1.5, False),
)
