"""What a distillation shows of its kernels: how redundant points and dimensions are, and how local their spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import Array
from ..plots import axes_or_new
from .analysis import Containment, containment, kept_variance
from .compression import Compression
from .decomposition import decompose
from .dimensions import ParameterRedundancy, parameter_redundancy
from .truncation import Redundancy, data_redundancy

HALVINGS = 4
"""Times that the dimensions are halved, to see how kernels survive it."""


@dataclass(frozen=True)
class Analysis:
    """Made by `DistilledNTK.analysis`; prints as a table."""

    redundancy: Redundancy
    """Spectra and truncation ranks of the class kernels of all points, of their mean, and of all gradients pooled."""
    containment: Containment
    """Clusters by global eigenvectors of the mean kernel: the heat map, and what global ones contain of local ones."""
    kept_variance: float
    """The share of the trace of the mean kernel in the span of the combinations."""
    dimensions: ParameterRedundancy | None
    """How class kernels change with fewer dimensions; None where columns of the projection depend on one another."""
    coverage: np.ndarray | None
    """(r_g,): how much of each of the first global eigenvectors the local ones cover; None if there are none."""

    @property
    def coverage_gap(self) -> float | None:
        """Σ λ_j (1 - c_j) / Σ λ_j over those global eigenvectors: the variance that local ones do not cover."""
        if self.coverage is None or not len(self.coverage):
            return None
        values = self.redundancy.mean_spectrum[: len(self.coverage)]
        return float(values @ (1 - self.coverage) / values.sum())

    @property
    def containment_gap(self) -> float:
        """The share of local variance that the first global eigenvectors leave out."""
        return self.containment.gap

    def __str__(self) -> str:
        lines = [
            str(self.redundancy),
            "",
            f"variance kept by the combinations   {self.kept_variance:.4f}",
            f"local variance outside global ones  {self.containment_gap:.4f}",
        ]
        if self.coverage_gap is not None:
            lines.append(f"global variance outside local ones  {self.coverage_gap:.4f}")
        return "\n".join(lines if self.dimensions is None else [*lines, "", str(self.dimensions)])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "redundancy": self.redundancy.to_dict(),
            "containment": self.containment.overall.tolist(),
            "containment_gap": self.containment_gap,
            "coverage_gap": self.coverage_gap,
            "kept_variance": self.kept_variance,
        }

    def plot(self, axes: Any = None) -> Any:
        """Spectra, containment, the heat map, and errors by dimensions; needs matplotlib.

        Returns the array (2, 2) of axes.
        """
        from .plots import plot_containment, plot_heat_map, plot_parameter_redundancy, plot_spectra

        axes = axes_or_new(axes, rows=2, columns=2, size=(10.0, 7.6))
        plot_spectra(self.redundancy, axes[0, 0])
        plot_containment(self.containment, axes[0, 1])
        plot_heat_map(self.containment, axes[1, 0])
        if self.dimensions is None:
            axes[1, 1].set_visible(False)
        else:
            plot_parameter_redundancy(self.dimensions, axes[1, 1])
        return axes

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, to be stored."""
        found = {
            "share": np.asarray([self.redundancy.share, self.kept_variance]),
            "class_spectra": self.redundancy.class_spectra,
            "mean_spectrum": self.redundancy.mean_spectrum,
            "pooled_spectrum": self.redundancy.pooled_spectrum,
            "heat": self.containment.heat,
            "weights": self.containment.weights,
        }
        if self.dimensions is not None:
            found["dims"] = np.asarray(self.dimensions.dims)
            for name in ERRORS:
                found[name] = getattr(self.dimensions, name)
        return found


ERRORS = ("kernel_errors", "spectrum_errors", "ranks", "reference_ranks")


def analysis_from(arrays: Mapping[str, np.ndarray], coverage: np.ndarray | None) -> Analysis:
    """What `arrays` gave."""
    share, kept = (float(value) for value in arrays["share"])
    spectra = arrays["class_spectra"]
    dimensions = None
    if "dims" in arrays:
        dims = tuple(int(dim) for dim in arrays["dims"])
        dimensions = ParameterRedundancy(dims, *(arrays[name] for name in ERRORS))
    return Analysis(
        Redundancy(share, spectra.shape[1], spectra, arrays["mean_spectrum"], arrays["pooled_spectrum"]),
        Containment(arrays["heat"], arrays["weights"]),
        kept,
        dimensions,
        coverage,
    )


def analysed(features: Array, compression: Compression, labels: np.ndarray, nested: bool) -> Analysis:
    """The analysis of features (m, O, k) of all points.

    Clusters are those of the compression, or else the classes. `nested` says whether fewer columns of the features
    are a projection too, to fewer dimensions.
    """
    clusters = labels if compression.clusters is None else compression.clusters
    parts, k = decompose(features, clusters), int(features.shape[2])
    dims = sorted({max(1, k >> i) for i in range(HALVINGS + 1)})
    return Analysis(
        data_redundancy(features),
        containment(parts),
        kept_variance(parts, compression),
        parameter_redundancy(features, dims) if nested else None,
        compression.coverage,
    )
