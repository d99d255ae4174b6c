"""Exact kernels between examples: the full NTK, and its reductions over outputs, of which pNTK is one.

`reductions` says which cotangents an example gets, `images` makes gradients of ranges of examples, `contraction`
multiplies those of two ranges, in factors where layers give them so, and `tiles` goes through all pairs of ranges
within a budget. Tiles are put together in memory by `assembly`, or go to a `store` by `streaming`, or are tasks of a
`farm` of `workers`. `posing` turns keywords into all that, and `exact` is what users call. Stores and workers know
nothing of kernels; projections have theirs from here.
"""

from .blocks import kernel_blocks
from .exact import ntk, pntk

__all__ = ["kernel_blocks", "ntk", "pntk"]
