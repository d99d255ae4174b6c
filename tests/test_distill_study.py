"""The analysis that comes with distilled kernels, and what is printed."""

import json

import numpy as np
import pytest

import ntkest
from tests.distilling import PHI, SAID


@pytest.fixture(scope="module")
def analysed():
    return ntkest.distill_features(PHI, SAID, size=8, clusters=3)


def test_the_analysis_has_ranks_by_class_and_pooled(analysed):
    found = analysed.analysis
    assert found is analysed.analysis
    for c, rank in enumerate(found.redundancy.ranks):
        values = np.linalg.eigvalsh(PHI[:, c] @ PHI[:, c].T)[::-1]
        assert rank == np.argmax(np.cumsum(values) >= 0.95 * values.sum()) + 1
    values = np.linalg.svd(PHI.reshape(60, 50), compute_uv=False) ** 2
    assert found.redundancy.pooled_rank == np.argmax(np.cumsum(values) >= 0.95 * values.sum()) + 1
    K = np.einsum("mok,nok->mn", PHI, PHI)
    u = np.asarray(analysed.compression.vectors)
    assert found.kept_variance == pytest.approx(np.trace(u.T @ K @ u) / np.trace(K))


def test_gaps_are_shares_of_variance(analysed):
    found = analysed.analysis
    values = np.linalg.eigvalsh(np.einsum("mok,nok->mn", PHI, PHI))[::-1]
    covered = analysed.compression.coverage
    weights = values[: len(covered)]
    assert found.coverage_gap == pytest.approx(weights @ (1 - covered) / weights.sum())
    assert 0 <= found.containment_gap <= 1
    assert ntkest.distill_features(PHI, SAID, compression="none").analysis.coverage_gap is None
    assert ntkest.distill_features(PHI, SAID, compression="none").analysis.containment.heat.shape[0] == 3


def test_the_analysis_is_written_if_there_was_one(analysed, tmp_path):
    json.dumps(analysed.analysis.to_dict(), allow_nan=False)
    analysed.save(tmp_path / "with.npz")
    again = ntkest.DistilledNTK.load(tmp_path / "with.npz")
    assert again.analysis.to_dict() == analysed.analysis.to_dict()
    assert str(again.analysis) == str(analysed.analysis)
    ntkest.distill_features(PHI, SAID, size=8, clusters=3).save(tmp_path / "without.npz")
    with pytest.raises(ntkest.NTKError, match="before save"):
        ntkest.DistilledNTK.load(tmp_path / "without.npz").analysis  # noqa: B018


def test_dimensions_are_analysed_where_columns_are_independent(one):
    (f, params, x), _ = one
    kinds = {"rademacher": True, "gaussian": True, "sjlt": False}
    for kind, nested in kinds.items():
        found = ntkest.distill(f, params, x, dim=32, kind=kind, size=5, clusters=2)
        assert (found.analysis.dimensions is not None) == nested
        assert found.about["kind"] == kind
    dims = ntkest.distill(f, params, x, dim=32, size=5, clusters=2).analysis.dimensions
    assert dims.dims == (2, 4, 8, 16, 32)


def test_the_analysis_is_drawn(analysed):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = analysed.analysis.plot()
    assert axes.shape == (2, 2)
    assert not axes[1, 1].get_visible()
    matplotlib.pyplot.close(axes[0, 0].figure)


def test_what_is_printed(analysed, one):
    assert repr(analysed) == "<DistilledNTK of 3 classes: 20 points, 8 gradients in 50 dimensions>"
    assert "20 by given" in str(analysed)
    assert "redundancy" in str(analysed.analysis)
    found = ntkest.distill(*one[0], dim=20, size=4, clusters=2)
    assert "pNTK, in factors" in str(found)
    assert "24 by identity" in str(found)
