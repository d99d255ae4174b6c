"""From a model and its data to a `DistilledNTK`: points, projection, compression, regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import usercode
from ..kernels.fingerprint import digest
from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError
from ..memory import byte_count
from ..predict.systems import check_beside, checked_ridge
from ..probes import check_seed
from .counting import Tally
from .features import check_features
from .gradients import compressed
from .ledger import ledger, shapes_of
from .points import Points
from .points.stages import as_stage
from .result import DistilledNTK
from .source import BATCH, logits_of, parameters_of, source_of
from .steps import (
    Projection,
    at_points,
    checked_dim,
    checked_logits,
    looks_at_features,
    own_classes,
    points_of,
)


def distill(
    target: Any,
    /,
    *args: Any,
    labels: Any = None,
    data: Any = "identity",
    points: int | None = None,
    dim: int | None = None,
    kind: str = "rademacher",
    compression: Any = "local-global",
    size: int | None = None,
    variance: float | None = None,
    coverage_threshold: float | None = None,
    clusters: Any = 10,
    ridge: float = 1e-4,
    memory: int | str = "1GB",
    batch: int = BATCH,
    out: Any = None,
    force: bool = False,
    client: Any = None,
    seed: int = 0,
    progress: Any = False,
    output: Any = None,
    params: Any = None,
    backend: str | None = None,
    check: bool = True,
) -> DistilledNTK:
    """Few synthetic gradients with which ridge regression predicts what the network does.

    Points of the data are chosen or made (`data`); the gradients of their outputs are projected to `dim` dimensions by
    `ntkest.project`; and they are combined into few (`compression`), with which each class has a kernel of its own,
    K_c = Φ_c Φ_cᵀ. Three forms: ``distill(module, inputs)``, ``distill(f, params, inputs)``, and ``distill(J)`` with a
    linearization, which knows its own inputs only.

    Parameters
    ----------
    target : module, callable or Linearization
        As for `ntkest.linearize`; with `client` a factory, as for `ntkest.ntk`, of what that takes.
    *args
        ``(inputs,)`` for a module, ``(params, inputs)`` for a function. `inputs` is an array (N, …), one entry an
        example, that the model turns into outputs (N, O), one a class.
    labels : array or sequence of int (N,), optional
        The classes by which points are chosen; default: the network's own, its largest output.
    data : str or callable
        "identity", all examples; "uniform", "kmeans", "farthest", "leverage", "rpcholesky", a subset; "wasserstein",
        "tangent", "inducing", new inputs; or a stage, see `ntkest.distilled.stages`.
    points : int, optional
        How many a class; all with "identity".
    dim : int, optional
        k, at most the number P of parameters; default 4096, or P if that is less.
    kind : str
        Of the projection, see `ntkest.project`.
    compression : str, Compression or callable
        "local-global"; "global", the eigenvectors of the mean kernel; a name of a selection, that many points as they
        are; "none"; a `Compression`; or a function of the features (m, O, k) that returns one.
    size : int, optional
        s, how many synthetic gradients; default: as many as `variance` and `coverage_threshold` ask for.
    variance, coverage_threshold : float, optional
        τ_v and τ_g of local-global compression, see `ntkest.distilled.local_global`.
    clusters : int or integers (m,)
        H, for spectral clustering, or the cluster of each point.
    ridge : float
        λ, relative to the mean of the diagonal of each class kernel.
    memory : int or str
        Bytes for gradients beside the model and the features.
    batch : int
        Examples that are linearized together.
    out : path, optional
        A zarr store for the features of the data, with which a run that was stopped goes on; see `ntkest.project`.
    force : bool
        Begin that store anew.
    client : dask.distributed.Client or concurrent.futures.Executor, optional
        Workers that project the gradients of the data.
    seed : int
        Of all random numbers.
    progress : bool or callable
        As for `ntkest.project`.
    output, params, backend, check
        As for `ntkest.linearize`.

    Returns
    -------
    DistilledNTK
        For O reverse passes over the examples whose features are needed, all of them for methods that choose by
        features; its `ledger` has the whole cost.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, InteractingExamplesError
        A class has no example, or fewer than `points`; `clusters` or `size` is more than there are points; `dim` is
        more than there are parameters; …
    NonFiniteError
        Gradients of some examples hold NaN or infinity.
    StoreError, WorkerError
    """
    made, factory = (target, *args), None
    if client is not None:
        made, factory = _made(target, args), target
    options = {"output": output, "params": params, "batch_axis": 0, "backend": backend, "check": check}
    source, inputs = source_of(made[0], tuple(made[1:]), options, batch)
    stage, budget, tally = as_stage(data), byte_count(memory), Tally()
    J = source.linearize(inputs)
    logits, P = checked_logits(logits_of(J)), parameters_of(J)
    projection = Projection(checked_dim(dim, P), kind, check_seed(seed), budget, progress)
    whole = None
    if looks_at_features(stage, source):
        where = {} if out is None and client is None else {"out": out, "force": force, "client": client}
        whole = projection.of(J, tally, factory, **where)
    elif out is not None or client is not None:
        raise InvalidValueError(f"out= and client= are for the features of all data, which data={data!r} does without")
    elif source.target is None:
        raise InvalidTypeError(f"data={data!r} makes inputs, and a linearization has none to hand out: give the model")
    found = points_of(stage, source, inputs, logits, labels, points, whole, seed, progress)
    features, targets = at_points(found, source, projection, tally, whole, logits)
    projected = tally.gradients
    tally.add(found.gradients, found.passes)
    name, combined = compressed(
        compression,
        features,
        size,
        variance=variance,
        coverage_threshold=coverage_threshold,
        clusters=clusters,
        seed=seed,
    )
    counts = {
        "N": logits.shape[0],
        "O": logits.shape[1],
        "P": P,
        "m": features.shape[0],
        "s": combined.size,
        "k": projection.dim,
    }
    about = {
        "data": data if isinstance(data, str) else type(data).__name__,
        "compression": name,
        "kind": kind,
        "seed": seed,
        "memory": budget,
        "parameters": digest(J),
        **{key: int(count) for key, count in counts.items()},
    }
    synthetic, aims = combined.apply(features, targets)
    return DistilledNTK(
        synthetic,
        aims,
        checked_ridge(ridge),
        combined,
        found,
        about,
        ledger(shapes_of(J, projection.dim, kind, seed), counts, projected, tally.gradients, tally.passes),
        source,
        (features, targets),
    )


def distill_features(
    features: Array,
    outputs: Array,
    *,
    compression: Any = "local-global",
    size: int | None = None,
    variance: float | None = None,
    coverage_threshold: float | None = None,
    clusters: Any = 10,
    ridge: float = 1e-4,
    seed: int = 0,
) -> DistilledNTK:
    """The same from tangent features that are there already, in any Array API namespace.

    Parameters
    ----------
    features : array (m, O, k)
        Gradients of O outputs at m points, whole or projected; Φ_c Φ_cᵀ is the kernel of class c.
    outputs : array (m, O)
        What the network says at these points.
    compression, size, variance, coverage_threshold, clusters, ridge, seed
        As for `distill`.

    Returns
    -------
    DistilledNTK
        Which predicts from features (n, O, k), and has no ledger.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    ZeroKernelError
        All features are zero.
    """
    check_features(features)
    check_beside(outputs, features, "outputs")
    if tuple(outputs.shape) != tuple(features.shape[:2]):
        raise ShapeError(
            f"features (m, O, k) of shape {tuple(features.shape)} go with outputs {tuple(features.shape[:2])}, not "
            f"{tuple(outputs.shape)}"
        )
    name, combined = compressed(
        compression,
        features,
        size,
        variance=variance,
        coverage_threshold=coverage_threshold,
        clusters=clusters,
        seed=seed,
    )
    m, O, k = (int(n) for n in features.shape)  # noqa: E741
    about = {"data": "given", "compression": name, "seed": seed, "N": m, "O": O, "m": m, "s": combined.size, "k": k}
    synthetic, aims = combined.apply(features, outputs)
    points = Points(None, own_classes(outputs), np.arange(m))
    return DistilledNTK(synthetic, aims, checked_ridge(ridge), combined, points, about, None, None, (features, outputs))


def _made(target: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a factory returns: ``(model, inputs)``, ``(f, params, inputs)``, or a linearization alone."""
    if args:
        raise InvalidTypeError(
            "with client= workers build the model: give a factory alone, that returns its inputs too"
        )
    made = usercode.call(usercode.name_of(target))
    return tuple(made) if isinstance(made, tuple | list) else (made,)
