"""Tangent kernels in scikit-learn: `TangentKernelRidge` and `TangentKernelClassifier`.

Without a network of yours they use a fully connected one with hidden layers of `widths` rectified units, in NumPy,
whose weights are drawn with `random_state` and never trained: its kernel at initialisation is all that is used.
`ntkest.sklearn.network` says what it is exactly. Needs scikit-learn, ``pip install "ntkest[sklearn]"``, and no
framework.
"""

from .estimators import TangentKernelClassifier, TangentKernelRidge

__all__ = ["TangentKernelClassifier", "TangentKernelRidge"]
