"""The spectrum of K = J Jᵀ: eigenvalues, their density, and traces of functions of K."""

from .eigen import Eigenvalues, eigenvalues

__all__ = ["Eigenvalues", "eigenvalues"]
