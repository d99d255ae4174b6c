"""The exceptions of ntkest: every one is an `NTKError` and also the built-in that fits."""

from __future__ import annotations


class NTKError(Exception):
    """Base of all errors that ntkest raises on purpose."""


class InvalidValueError(NTKError, ValueError):
    """A keyword, number or array has a value that cannot be used."""


class InvalidTypeError(NTKError, TypeError):
    """An object has a type that cannot be used here."""


class ShapeError(NTKError, ValueError):
    """Two arrays, or an array and a model, do not fit together."""


class DeviceMismatchError(NTKError, ValueError):
    """Arrays come from different namespaces or live on different devices."""


class NonFiniteError(NTKError, ValueError):
    """Parameters, outputs or derivatives hold NaN or infinity."""


class NonDifferentiableError(NTKError, TypeError):
    """The outputs or parameters are integers, complex numbers or cut off from each other."""


class InteractingExamplesError(NTKError, ValueError):
    """Outputs of one example depend on another example where independence is needed."""


class NotRepeatableError(NTKError, RuntimeError):
    """The model gives different outputs when it is called twice on the same input."""


class InconsistentDerivativesError(NTKError, RuntimeError):
    """The JVP and the VJP of the model are not adjoint to each other."""


class UnsupportedModeError(NTKError, RuntimeError):
    """The model, or the layer named in the message, lacks the AD mode that was asked for."""


class StaleLinearizationError(NTKError, RuntimeError):
    """The parameters or inputs were changed in place after the linearization was made."""


class MissingBackendError(NTKError, ImportError):
    """No adapter is installed for the framework of the model."""


class MissingPackageError(NTKError, ImportError):
    """A package that only some calls need is not installed."""


class StoreError(NTKError, OSError):
    """A kernel on disk cannot be written, or is not the one that was asked for."""


class WorkerError(NTKError, RuntimeError):
    """A worker died, or made something else than the others."""


class ZeroKernelError(NTKError, ValueError):
    """A ratio was asked of a kernel, or targets, that are zero."""


class TracedValueError(NTKError, TypeError):
    """Something that needs a number was asked while a framework is tracing."""
