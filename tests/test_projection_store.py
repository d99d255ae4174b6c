"""Projections in a zarr store: what is finished stays, what is another's is refused, and the bytes repeat."""

from __future__ import annotations

import numpy as np
import pytest

import ntkest
from ntkest.kernels import store
from tests.stores import StoppedError, files, killed_and_whole, stop_after

pytest.importorskip("zarr")

N, O, P = 20, 3, 150  # noqa: E741 - the number of outputs of an example
A = np.random.default_rng(0).standard_normal((N * O, P))
J = ntkest.from_jacobian({"a": A[:, :90], "b": A[:, 90:]}, output_shape=(N, O))
SMALL = 60_000
"""Bytes that hold a few examples."""


class ForwardOnly:
    """A linearization without reverse mode."""

    modes = frozenset({"jvp"})

    def __getattr__(self, name):
        return getattr(J, name)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "sjlt"])
@pytest.mark.parametrize("way", [J, ForwardOnly()], ids=["examples", "columns"])
def test_the_store_holds_the_features(tmp_path, kind, way):
    import zarr

    found = ntkest.project(way, 140, kind, 3, out=tmp_path / "g.zarr", memory=SMALL)
    assert found.shape == (N, O, 140)
    assert found.chunks[0] < N or found.chunks[2] < 140
    np.testing.assert_allclose(found[:], ntkest.project(J, 140, kind, 3), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "g.zarr"), mode="r")[:], found[:])
    with pytest.raises(ValueError, match="read"):
        found[0, 0, 0] = 1.0


@pytest.mark.parametrize("way", [J, ForwardOnly()], ids=["examples", "columns"])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path, way):
    ntkest.project(way, 140, out=tmp_path / "whole.zarr", memory=SMALL)
    for count in (0, 1, 3):
        path = tmp_path / f"{count}.zarr"
        with pytest.raises(StoppedError):
            ntkest.project(way, 140, out=path, memory=SMALL, progress=stop_after(count))
        if count:
            assert np.isnan(store._zarr().open_array(str(path), mode="r")[:]).any()
        seen = []
        found = ntkest.project(way, 140, out=path, memory="1GB", progress=lambda done, total: seen.append(done))  # noqa: B023
        assert seen[0] == count
        assert not np.isnan(found[:]).any()
        assert files(path) == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (lambda: (ntkest.from_jacobian(A + 1e-3, output_shape=(N, O)), {}), "parameters are others"),
        (lambda: (ntkest.from_jacobian({"a": A[:, :90], "b": A[:, 90:] + 1e-3}, (N, O)), {}), "inputs are others"),
        (lambda: (J, {"seed": 1}), "seed= was another"),
        (lambda: (J, {"kind": "sjlt"}), "kind= was another"),
        (lambda: (J, {"dim": 20}), "numbers of examples, of outputs or of features"),
        (lambda: (ForwardOnly(), {}), "by examples and now would by columns"),
    ],
    ids=["parameters", "inputs", "seed", "kind", "dim", "mode"],
)
def test_another_projection_is_refused_and_left_alone(tmp_path, again, reason):
    path = tmp_path / "g.zarr"
    with pytest.raises(StoppedError):
        ntkest.project(J, 140, out=path, memory=SMALL, progress=stop_after(2))
    before = files(path)
    other, keywords = again()
    keywords = {"dim": 140, **keywords}
    with pytest.raises(ntkest.NTKError, match=f"holds another projection: .*{reason}.*force=True"):
        ntkest.project(other, out=path, **keywords)
    assert files(path) == before
    found = ntkest.project(other, out=path, force=True, **keywords)
    np.testing.assert_allclose(found[:], ntkest.project(other, **keywords), rtol=1e-12, atol=1e-12)
    assert not [p for p in tmp_path.iterdir() if p.name != "g.zarr"]


def test_kernels_and_projections_do_not_replace_each_other(tmp_path):
    ntkest.project(J, 20, out=tmp_path / "g.zarr")
    ntkest.ntk(J, out=tmp_path / "K.zarr")
    before = files(tmp_path)
    for force in (False, True):
        with pytest.raises(ntkest.NTKError, match="is no kernel of ntkest"):
            ntkest.ntk(J, out=tmp_path / "g.zarr", force=force)
        with pytest.raises(ntkest.NTKError, match="is no projection of ntkest"):
            ntkest.project(J, 20, out=tmp_path / "K.zarr", force=force)
    assert files(tmp_path) == before
    with pytest.raises(ntkest.NTKError, match="out= takes the path"):
        ntkest.project(J, 20, out=3)


@pytest.mark.parametrize("damage", ["changed", "mark", "format"])
def test_a_damaged_store_is_refused(tmp_path, damage):
    path = tmp_path / "g.zarr"
    ntkest.project(J, 140, out=path, memory=SMALL)
    chunk, about = path / "c" / "1" / "0" / "0", path / store.OWN / "projection.json"
    if damage == "changed":
        content = bytearray(chunk.read_bytes())
        content[100] ^= 1
        chunk.write_bytes(content)
    elif damage == "mark":
        (path / store.OWN / "done" / "1.0").write_text("{}")
    else:
        about.write_text(about.read_text().replace("ntkest-projection/1", "ntkest-projection/0"))
    with pytest.raises(ntkest.NTKError, match="this version writes" if damage == "format" else "damaged"):
        ntkest.project(J, 140, out=path)
    found = ntkest.project(J, 140, out=path, force=True)
    np.testing.assert_allclose(found[:], ntkest.project(J, 140), rtol=1e-12, atol=1e-12)


def test_a_process_that_is_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    killed_and_whole(tmp_path, 'ntkest.project(J, 1500, "gaussian", out=sys.argv[1], memory=4_000_000)')
