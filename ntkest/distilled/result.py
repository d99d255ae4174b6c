"""`DistilledNTK`: what comes of distillation, and what it predicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import array_api_compat

from ..kernels.fingerprint import digest
from ..kernels.images import item_bytes
from ..linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    ShapeError,
    StaleLinearizationError,
    beside,
    device,
    host,
    is_linearization,
)
from ..memory import byte_count
from ..predict.systems import check_beside
from ..projection import project
from . import archive
from .compression import Compression
from .kernels import class_kernels
from .ledger import Ledger, ledger_from
from .points.problem import Points, as_labels
from .prediction import ClassRidge, class_ridge
from .scores import Scores, scored
from .source import BATCH, Source, count_of, logits_of
from .study import Analysis, analysed, analysis_from

NESTED = ("rademacher", "gaussian")
"""Projections whose columns are independent, so that the first of them are one by themselves."""

WORKING = 4
"""Arrays of the size of a batch's features that are alive together."""


@dataclass(frozen=True)
class DistilledNTK:
    """Synthetic gradients and their targets, made by `ntkest.distill`; prints as a table."""

    features: Array
    """φ̂ (s, O, k): class c has the kernel Φ̂_c Φ̂_cᵀ."""
    targets: Array
    """ŷ (s, O)."""
    ridge: float
    """λ, relative to the mean of the diagonal of each class kernel."""
    compression: Compression
    """How they were made out of points."""
    points: Points
    """The points: labels, and inputs where they are at hand."""
    about: Mapping[str, Any]
    """How it was made, as plain data: stages, sizes, dimensions, seed."""
    ledger: Ledger | None = None
    """What it cost; None for features that were given."""
    _source: Source | None = field(default=None, repr=False)
    _pool: tuple[Array, Array] | None = field(default=None, repr=False)
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """How many synthetic gradients there are, s."""
        return int(self.features.shape[0])

    @property
    def analysis(self) -> Analysis:
        """Ranks, redundancy, containment and coverage of the kernels of all points, computed once.

        Some 10 (O + 1) m³ multiplications, and 4 min(m·O, k)³ for all gradients pooled.

        Raises
        ------
        InvalidValueError
            This was read from a file of a kernel that had not been analysed before: the features of points are not
            in files.
        """
        if "analysis" not in self._kept:
            if self._pool is None:
                raise InvalidValueError(
                    "a file has an analysis only if there was one when it was written: ask for .analysis before save"
                )
            nested = self.about.get("kind") in NESTED
            self._kept["analysis"] = analysed(self._pool[0], self.compression, self.points.labels, nested)
        found: Analysis = self._kept["analysis"]
        return found

    def predict(self, x: Any, *, rank: int | None = None) -> Array:
        """What the distilled kernel says the network says.

        Parameters
        ----------
        x : array (n, …), Linearization, or features (n, O, k)
            Inputs of the model; or the model linearized on them; or, where no model is at hand, features that were
            projected in the same way.
        rank : int, optional
            The predictor of rank r, from the r largest singular values of each Φ̂_c; default: all.

        Returns
        -------
        array (n, O)
            For O reverse passes over the inputs, their projection, and n·O·k multiplications.

        Raises
        ------
        InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError
        StaleLinearizationError
            The model's parameters are not those that were distilled.
        """
        found = [self._fit(rows, rank).predict(rows) for rows, _ in self._batches(x)]
        return found[0] if len(found) == 1 else array_api_compat.array_namespace(found[0]).concat(found, axis=0)

    def kernel(self, x1: Any, x2: Any = None) -> Array:
        """The projected kernel of each class between inputs, (O, n, n').

        Parameters
        ----------
        x1, x2 : as for `predict`
            Without `x2` the kernel of x1 with itself.
        """
        left = self.project(x1)
        if x2 is None:
            return class_kernels(left)
        xp, right = array_api_compat.array_namespace(left), self.project(x2)
        return xp.stack([left[:, c, :] @ right[:, c, :].T for c in range(left.shape[1])], axis=0)

    def project(self, x: Any) -> Array:
        """Tangent features (n, O, k) by the same projection."""
        found = [rows for rows, _ in self._batches(x)]
        return found[0] if len(found) == 1 else array_api_compat.array_namespace(found[0]).concat(found, axis=0)

    def fit(self, rank: int | None = None) -> ClassRidge:
        """The ridge regression behind predictions."""
        return self._fit(self.features, rank)

    def metrics(self, x: Any, labels: Any = None, outputs: Any = None, *, rank: int | None = None) -> Scores:
        """How well it stands in for the network on other inputs.

        Parameters
        ----------
        x : as for `predict`
        labels : array or sequence of int (n,), optional
        outputs : array (n, O), optional
            What the network says there; needed where x are features.
        rank : int, optional
            As for `predict`.

        Returns
        -------
        Scores
            For what `predict` costs: the regression with all points, where it is at hand, shares the features.

        Raises
        ------
        InvalidValueError, ShapeError
            And what `predict` raises.
        """
        whole = None if self._pool is None else class_ridge(*self._pool, self.ridge)
        found: list[tuple[Array, ...]] = []
        for rows, said in self._batches(x):
            truth = outputs if said is None else said
            if truth is None:
                raise InvalidValueError("features do not say what the network says: give metrics its outputs= there")
            check_beside(truth, rows, "outputs")
            more = () if whole is None else (whole.predict(rows),)
            found.append((self._fit(rows, rank).predict(rows), truth, *more))
        xp = array_api_compat.array_namespace(found[0][0])
        predicted, truth, *rest = (xp.concat(list(parts), axis=0) for parts in zip(*found, strict=True))
        if predicted.shape != truth.shape:
            raise ShapeError(f"outputs have shape {tuple(predicted.shape)}, not {tuple(truth.shape)}")
        known = None if labels is None else beside(xp, as_labels(labels, predicted.shape[0]), predicted, xp.int32)
        return scored(self, predicted, truth, known, rest[0] if rest else None)

    def save(self, path: Any, *, force: bool = False) -> None:
        """Write everything but the model and the features of the points before compression, as an .npz.

        Parameters
        ----------
        path : path
        force : bool
            Replace a file that is there; without it none is.

        Raises
        ------
        StoreError
        """
        points, combined = self.points, self.compression
        arrays: dict[str, Any] = {
            "features": self.features,
            "targets": self.targets,
            "vectors": combined.vectors,
            "clusters": combined.clusters,
            "coverage": combined.coverage,
            "labels": points.labels,
            "indices": points.indices,
            "inputs": points.inputs if points.indices is None else None,
        }
        if "analysis" in self._kept:
            arrays |= self.analysis.arrays()
        header: dict[str, Any] = {"ridge": self.ridge, "kinds": list(combined.kinds), "about": dict(self.about)}
        header["ledger"] = None if self.ledger is None else self.ledger.to_dict()
        archive.write(path, header, {name: host(a) for name, a in arrays.items() if a is not None}, force)

    @classmethod
    def load(cls, path: Any, model: Any = None, params: Any = None, **options: Any) -> DistilledNTK:
        """Read what `save` wrote, as NumPy arrays; predictions come in the model's own framework.

        Parameters
        ----------
        path : path
        model : module or callable, optional
            The model that was distilled, for predictions on inputs. Without it linearizations and features are taken.
        params : pytree, optional
            The parameters of a function, which come before its inputs.
        **options
            ``output``, ``backend`` and ``check``, as for `ntkest.linearize`, and ``batch``, as for `ntkest.distill`.

        Raises
        ------
        StoreError
            The file cannot be read, or is damaged.
        InvalidValueError
            It was written by another version, or is something else.
        """
        header, arrays = archive.read(path)
        combined = Compression(
            arrays["vectors"], tuple(header["kinds"]), arrays.get("clusters"), arrays.get("coverage")
        )
        points = Points(arrays.get("inputs"), arrays["labels"], arrays.get("indices"))
        stored = header["ledger"]
        source = Source(None, (), {}, 1)
        if model is not None:
            batch = options.pop("batch", BATCH)
            source = Source(model, () if params is None else (params,), {"batch_axis": 0, **options}, batch)
        return cls(
            arrays["features"],
            arrays["targets"],
            header["ridge"],
            combined,
            points,
            header["about"],
            None if stored is None else ledger_from(stored),
            source,
            _kept={"analysis": analysis_from(arrays, combined.coverage)} if "heat" in arrays else {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Sizes, settings and costs as plain data, ready for JSON."""
        ledger = None if self.ledger is None else self.ledger.to_dict()
        return {"about": dict(self.about), "ridge": self.ridge, "kinds": list(self.compression.kinds), "ledger": ledger}

    def __str__(self) -> str:
        about = self.about
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(self.compression.kinds).items())
        rows = [
            ("points", f"{about['m']:,} by {about['data']}"),
            ("dimensions", f"{about['k']:,}" + (f", {about['kind']}" if "kind" in about else "")),
            ("gradients", f"{self.size:,} by {about['compression']}: {kinds}"),
            ("ridge", f"{self.ridge:g} of the mean diagonal"),
        ]
        lines = [f"distilled kernels of {about['O']} classes", *(f"{name:<12}{text}" for name, text in rows)]
        return "\n".join(lines if self.ledger is None else [*lines, "", str(self.ledger)])

    def __repr__(self) -> str:
        O, m, s, k = (self.about[name] for name in "Omsk")  # noqa: E741
        return f"<DistilledNTK of {O} classes: {m} points, {s} gradients in {k} dimensions>"

    def _fit(self, like: Array, rank: int | None) -> ClassRidge:
        """The regression beside `like`, made once for each place and rank."""
        xp: ModuleType = array_api_compat.array_namespace(like)
        key = (xp.__name__, str(device(like)), rank)
        if key not in self._kept:
            features, targets = (
                a if array_api_compat.array_namespace(a) is xp else beside(xp, host(a), like)
                for a in (self.features, self.targets)
            )
            self._kept[key] = class_ridge(features, targets, self.ridge, rank=rank)
        found: ClassRidge = self._kept[key]
        return found

    def _batches(self, x: Any) -> Iterator[tuple[Array, Array | None]]:
        """Features (n, O, k), and the network's outputs (n, O) where it is at hand, of a few inputs at a time."""
        O, k = self.features.shape[1:]  # noqa: E741
        if "kind" not in self.about and is_linearization(x):
            raise InvalidTypeError(
                f"features were given, and nothing says how they were projected: give features (n, {O}, {k}), not a "
                "linearization"
            )
        if is_linearization(x) or (self._source is not None and self._source.target is not None):
            source = self._source or Source(None, (), {}, 1)
            for part in self._parts(x, O * k):
                J = source.linearize(part)
                self._check_model(J)
                rows = project(J, k, kind=self.about["kind"], seed=self.about["seed"], memory=self.about["memory"])
                yield rows, logits_of(J)
            return
        if not array_api_compat.is_array_api_obj(x) or tuple(x.shape[1:]) != (O, k):
            given = f"shape {tuple(x.shape)}" if hasattr(x, "shape") else type(x).__name__
            raise InvalidTypeError(
                f"this distilled kernel has no model: give a linearization, or features (n, {O}, {k}), not {given}; "
                "or load it with model="
            )
        yield x, None

    def _parts(self, x: Any, numbers_each: int) -> Iterator[Any]:
        """Inputs in parts whose features fit into memory; a linearization is not taken apart."""
        if is_linearization(x):
            yield x
            return
        xp = array_api_compat.array_namespace(self.features)
        each = WORKING * numbers_each * item_bytes(xp, self.features)
        together = max(1, byte_count(self.about["memory"]) // each)
        for start in range(0, count_of(x), together):
            yield x[start : start + together, ...]

    def _check_model(self, J: Linearization) -> None:
        if J.xp is not None and self.about["parameters"] != digest(J):
            raise StaleLinearizationError(
                "the model's parameters are not those that were distilled; restore them, or distill anew"
            )
