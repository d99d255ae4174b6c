"""Exact kernels between examples: the full NTK, and its reductions over outputs, of which pNTK is one.

`reductions` says which cotangents an example gets, `contraction` multiplies the gradients of two sets of examples, in
factors where layers give them so, and `exact` is what users call.
"""

from .exact import ntk, pntk

__all__ = ["ntk", "pntk"]
