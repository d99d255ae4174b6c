"""Plots of what a distillation shows. Matplotlib is imported when one is drawn; each returns the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plots import axes_or_new, heat_map
from .analysis import Containment
from .dimensions import ParameterRedundancy
from .metrics import Metrics
from .truncation import Redundancy


def plot_spectra(redundancy: Redundancy, ax: Any = None) -> Any:
    """Eigenvalues of the class kernels, thin, and of their mean, each over its trace, with dots at truncation ranks."""
    ax = axes_or_new(ax)
    spectra = [*redundancy.class_spectra, redundancy.mean_spectrum]
    ranks = [*redundancy.ranks, redundancy.mean_rank]
    names = [f"class {c}" for c in range(len(ranks) - 1)] + ["mean of all"]
    for name, values, rank in zip(names, spectra, ranks, strict=True):
        shares = values[values > 0] / values.sum() if rank else values[:0]
        width = 2.0 if name == "mean of all" else 0.8
        (line,) = ax.plot(np.arange(1, len(shares) + 1), shares, linewidth=width, label=name)
        if rank:
            ax.plot(rank, shares[rank - 1], "o", color=line.get_color())
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(f"component; dots: truncation rank at {redundancy.share:g}")
    ax.set_ylabel("eigenvalue / trace")
    ax.legend(fontsize="small", ncols=2)
    return ax


def plot_containment(found: Containment, ax: Any = None) -> Any:
    """How much of each cluster's variance the first global eigenvectors contain, thin, and of all clusters together."""
    ax = axes_or_new(ax)
    components = np.arange(1, found.heat.shape[1] + 1)
    for h, curve in enumerate(found.curves):
        ax.plot(components, curve, linewidth=0.8, label=f"cluster {h}")
    ax.plot(components, found.overall, color="k", linewidth=2.0, label="all")
    ax.set_ylim(0, 1)
    ax.set_xlabel("global eigenvectors")
    ax.set_ylabel("local variance contained")
    ax.legend(fontsize="small", ncols=2)
    return ax


def plot_heat_map(found: Containment, ax: Any = None) -> Any:
    """The share of each cluster's kernel along each global eigenvector."""
    return heat_map(found.heat, ("cluster", "global eigenvector"), "share of the cluster's trace", ax)


def plot_parameter_redundancy(found: ParameterRedundancy, ax: Any = None) -> Any:
    """Errors of kernels and spectra against the number of dimensions, means over classes."""
    ax = axes_or_new(ax)
    for name, errors in (("kernel", found.kernel_errors), ("spectrum", found.spectrum_errors)):
        ax.plot(found.dims, errors.mean(axis=1), "o-", label=name)
    ax.set_xscale("log")
    ax.set_yscale("log", nonpositive="mask")
    ax.set_xlabel("dimensions")
    ax.set_ylabel("relative error")
    ax.legend()
    return ax


def plot_ranks(ranks: Sequence[int], metrics: Sequence[Metrics], ax: Any = None) -> Any:
    """Fidelity, and accuracy where labels were given, of the predictors of several ranks."""
    ax = axes_or_new(ax)
    ax.plot(ranks, [one.fidelity for one in metrics], "o-", label="fidelity")
    if all(one.accuracy is not None for one in metrics):
        ax.plot(ranks, [one.accuracy for one in metrics], "o-", label="accuracy")
    ax.set_xlabel("rank of the predictor")
    ax.set_ylim(0, 1)
    ax.legend()
    return ax
