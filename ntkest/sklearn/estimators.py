"""Regression and classification with the tangent kernel of a network at initialisation, as scikit-learn wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..kernels import ntk
from ..linearization import InvalidTypeError, InvalidValueError, Linearization, accumulator, beside, host, number
from ..predict import KernelRidge, kernel_ridge
from .network import FullyConnected, draw_layers

ENTRIES = 2**24
"""Entries of the kernel between test and training examples that are computed together."""


class _TangentKernel(BaseEstimator):
    """What both estimators share: parameters, the kernel, and the fit."""

    def __init__(
        self,
        network: Callable[[np.ndarray], Linearization] | None = None,
        *,
        widths: tuple[int, ...] = (512,),
        outputs: Any = "sum",
        alpha: float | str = "loo",
        random_state: Any = 0,
    ) -> None:
        self.network = network
        self.widths = widths
        self.outputs = outputs
        self.alpha = alpha
        self.random_state = random_state

    def _fit(self, X: np.ndarray, targets: np.ndarray) -> None:
        """`targets` (N, O), centred."""
        sizes = (X.shape[1], *self._checked_widths(), targets.shape[1])
        self._layers = draw_layers(sizes, check_random_state(self.random_state))
        J = self._linearized(X)
        K = ntk(J, outputs=self.outputs)
        scale = number(J.xp.mean(J.xp.astype(J.xp.linalg.diagonal(K), accumulator(J.xp, K))))
        ridge = self.alpha if isinstance(self.alpha, str) else self._checked_alpha() * scale
        fit = kernel_ridge(K, beside(J.xp, targets, K, accumulator(J.xp, K)), ridge)
        self._ridge: KernelRidge = fit
        self.X_fit_, self.alpha_, self.dual_coef_ = X, fit.ridge / scale, host(fit.coefficients)

    def _predicted(self, X: Any) -> np.ndarray:
        """(N', O), before what was subtracted from the targets is put back."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        J = self._linearized(self.X_fit_)
        step = max(1, ENTRIES // self.dual_coef_.size)
        parts = (X[start : start + step] for start in range(0, len(X), step))
        found = [host(self._ridge.predict(ntk(self._linearized(part), J, outputs=self.outputs))) for part in parts]
        return np.asarray(np.concatenate(found), dtype=np.float64)

    def _linearized(self, X: np.ndarray) -> Any:
        return FullyConnected(self._layers, X) if self.network is None else self.network(X)

    def _checked_widths(self) -> tuple[int, ...]:
        try:
            widths = tuple(int(width) for width in self.widths)
        except TypeError as error:
            raise InvalidTypeError(f"widths= takes a tuple of positive integers, not {self.widths!r}") from error
        if any(width < 1 for width in widths):
            raise InvalidValueError(f"widths= takes a tuple of positive integers, not {self.widths!r}")
        return widths

    def _checked_alpha(self) -> float:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float | np.number):
            raise InvalidTypeError(f"alpha= takes 'loo' or a number that is not negative, not {self.alpha!r}")
        return float(self.alpha)


class TangentKernelRidge(RegressorMixin, _TangentKernel):  # type: ignore[misc]
    """Kernel ridge regression with the tangent kernel of a network at initialisation.

    That is what a wide network predicts that is trained by gradient descent on squared errors, weight decay towards its
    initialisation being the ridge, less what it predicted before training. Targets are centred. Scale the inputs: the
    kernel knows their lengths and angles.

    Parameters
    ----------
    network : callable, optional
        From inputs (N, d), a NumPy array, to a linearization on them: ``lambda X: ntkest.linearize(model,
        torch.tensor(X))``. It is called for training and for test inputs; where the estimator is to be pickled it must
        be a function that can be. None: the network described in `ntkest.sklearn`.
    widths : tuple of int
        Of the hidden layers of that network. Not used with `network`.
    outputs : "sum", "trace", "full", "signs:s", int or vector
        Which kernel, as for `ntkest.ntk`. "sum" is pNTK up to a factor, "full" treats all outputs together.
    alpha : "loo" or float
        The ridge, as a multiple of the kernel's mean diagonal entry; or the best at leaving out one example.
    random_state : int, RandomState instance or None
        Of the weights of the default network.

    Attributes
    ----------
    alpha_ : float
        The ridge that was used, as a multiple of the kernel's mean diagonal entry.
    dual_coef_ : array (N, O)
    X_fit_ : array (N, d)
    n_features_in_ : int
    """

    def fit(self, X: Any, y: Any) -> TangentKernelRidge:
        """Fit to inputs X (N, d) and targets y (N,) or (N, O)."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        y = np.asarray(y, dtype=np.float64)
        self._flat = y.ndim == 1
        targets = y.reshape(len(y), -1)
        self._mean = targets.mean(axis=0)
        self._fit(X, targets - self._mean)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Targets for inputs X (N', d), in the shape of those of the fit."""
        found: np.ndarray = self._predicted(X) + self._mean
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class TangentKernelClassifier(ClassifierMixin, _TangentKernel):  # type: ignore[misc]
    """Classification by kernel ridge regression on one-hot labels, with a tangent kernel.

    As `TangentKernelRidge`, on rows of the identity less 1/C for C classes; the largest output wins.

    Parameters
    ----------
    network, widths, outputs, alpha, random_state
        As for `TangentKernelRidge`.

    Attributes
    ----------
    classes_ : array (C,)
    alpha_ : float
        The ridge that was used, as a multiple of the kernel's mean diagonal entry.
    dual_coef_ : array (N, C)
    X_fit_ : array (N, d)
    n_features_in_ : int
    """

    def fit(self, X: Any, y: Any) -> TangentKernelClassifier:
        """Fit to inputs X (N, d) and labels y (N,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        count = len(self.classes_)
        self._fit(X, np.eye(count)[labels] - 1 / count)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The outputs (N', C); for two classes that of the second less that of the first, (N',)."""
        found = self._predicted(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, X: Any) -> np.ndarray:
        """Labels (N',)."""
        chosen = self._predicted(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])
