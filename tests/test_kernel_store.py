"""Kernels in a zarr store: what is finished stays, what is another's is refused, and the bytes are always the same."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

import ntkest
from ntkest.kernels import store
from ntkest.kernels.streaming import KERNEL, moments
from tests.stores import StoppedError, files, killed_and_whole, stop_after

pytest.importorskip("zarr")

N, O, P = 20, 3, 40  # noqa: E741 - the number of outputs of an example
A = np.random.default_rng(0).standard_normal((N * O, P))
BLOCKS = {"a.w": A[:, :25], "a.b": A[:, 25:30], "c": A[:, 30:]}
J = ntkest.from_jacobian(BLOCKS, output_shape=(N, O))
SMALL = 60_000
"""Bytes that hold a few examples."""


@pytest.mark.parametrize("outputs", ["full", "sum", "trace"])
def test_the_store_holds_the_kernel(tmp_path, outputs):
    K = ntkest.ntk(J, outputs=outputs, out=tmp_path / "K.zarr", memory=SMALL)
    assert K.chunks[0] < K.shape[0]
    np.testing.assert_allclose(K[:], ntkest.ntk(J, outputs=outputs), rtol=1e-12, atol=1e-12)
    import zarr

    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "K.zarr"), mode="r")[:], K[:])
    with pytest.raises(ValueError, match="read"):
        K[0, 0] = 1.0


def test_a_kernel_between_two_sets_is_stored(tmp_path):
    B = np.random.default_rng(1).standard_normal((7 * O, P))
    other = ntkest.from_jacobian({"a.w": B[:, :25], "a.b": B[:, 25:30], "c": B[:, 30:]}, output_shape=(7, O))
    K = ntkest.ntk(J, other, out=tmp_path / "K.zarr", memory=SMALL)
    np.testing.assert_allclose(K[:], A @ B.T, rtol=1e-12, atol=1e-12)
    with pytest.raises(ntkest.NTKError, match="with itself, or not"):
        ntkest.ntk(J, out=tmp_path / "K.zarr")


def test_layers_are_a_group_of_arrays(tmp_path):
    kernels = ntkest.ntk(J, by="layer", out=tmp_path / "K.zarr", memory=SMALL)
    assert list(kernels) == ["a", "c"]
    np.testing.assert_allclose(kernels["c"][:], A[:, 30:] @ A[:, 30:].T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kernels["a"][:] + kernels["c"][:], A @ A.T, rtol=1e-12, atol=1e-12)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path):
    ntkest.ntk(J, out=tmp_path / "whole.zarr", memory=SMALL)
    for count in (0, 1, 4):
        path = tmp_path / f"{count}.zarr"
        with pytest.raises(StoppedError):
            ntkest.ntk(J, out=path, memory=SMALL, progress=stop_after(count))
        seen = []
        K = ntkest.ntk(J, out=path, memory=SMALL, progress=lambda done, total: seen.append(done))  # noqa: B023
        assert seen[0] == count
        assert not np.isnan(K[:]).any()
        assert files(path) == files(tmp_path / "whole.zarr")


def test_a_finished_tile_is_not_computed_again_with_more_or_less_memory(tmp_path):
    path = tmp_path / "K.zarr"
    with pytest.raises(StoppedError):
        ntkest.ntk(J, out=path, memory=SMALL, progress=stop_after(2))
    before = files(path)
    seen = []
    K = ntkest.ntk(J, out=path, memory="1GB", progress=lambda done, total: seen.append(done))
    assert seen[0] == 2
    assert before.items() <= files(path).items()
    np.testing.assert_allclose(K[:], A @ A.T, rtol=1e-12, atol=1e-12)
    ntkest.ntk(J, out=tmp_path / "whole.zarr", memory=SMALL)
    assert files(path) == files(tmp_path / "whole.zarr")


def test_what_is_not_finished_is_no_number(tmp_path):
    import zarr

    path = tmp_path / "K.zarr"
    with pytest.raises(StoppedError):
        ntkest.ntk(J, out=path, memory=SMALL, progress=stop_after(1))
    K = zarr.open_array(str(path), mode="r")
    assert not np.isnan(K[: K.chunks[0], : K.chunks[1]]).any()
    assert np.isnan(K[-1, -1])


def changed(**blocks):
    return ntkest.from_jacobian({**BLOCKS, **blocks}, output_shape=(N, O))


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (lambda: (changed(c=BLOCKS["c"] + 1e-3), {}), "the inputs are others"),
        (lambda: (J, {"outputs": "sum"}), "outputs= was another"),
        (lambda: (J, {"outputs": "trace"}), "outputs= was another"),
        (lambda: (J, {"by": "layer"}), "by= was another"),
        (lambda: (ntkest.from_jacobian(A[:30], output_shape=(10, 3)), {}), "numbers of examples"),
        (lambda: (ntkest.from_jacobian({k: v.astype(np.float32) for k, v in BLOCKS.items()}, (N, O)), {}), "dtype"),
    ],
    ids=["inputs", "sum", "trace", "layers", "examples", "dtype"],
)
def test_another_kernel_is_refused_and_left_alone(tmp_path, again, reason):
    path = tmp_path / "K.zarr"
    with pytest.raises(StoppedError):
        ntkest.ntk(J, out=path, memory=SMALL, progress=stop_after(2))
    before = files(path)
    other, keywords = again()
    with pytest.raises(ntkest.NTKError, match=f"holds another kernel: .*{reason}.*force=True"):
        ntkest.ntk(other, out=path, **keywords)
    assert files(path) == before
    kernels = ntkest.ntk(other, out=path, force=True, **keywords)
    expected = ntkest.ntk(other, **keywords)
    for name in expected if isinstance(expected, dict) else [None]:
        found, wanted = (kernels, expected) if name is None else (kernels[name], expected[name])
        np.testing.assert_allclose(found[:], wanted, rtol=1e-5, atol=1e-4)
    assert not [p for p in tmp_path.iterdir() if p.name != "K.zarr"]


def test_what_is_no_kernel_of_ours_is_never_replaced(tmp_path):
    path = tmp_path / "thesis"
    path.mkdir()
    (path / "chapter.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ntkest.NTKError, match="is no kernel of ntkest"):
            ntkest.ntk(J, out=path, force=force)
    assert (path / "chapter.txt").read_text() == "years of work"
    with pytest.raises(ntkest.NTKError, match="there is no folder"):
        ntkest.ntk(J, out=tmp_path / "nowhere" / "K.zarr")
    with pytest.raises(ntkest.NTKError, match="out= takes the path"):
        ntkest.ntk(J, out=3)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "mark", "description", "format"])
def test_a_damaged_store_is_refused(tmp_path, damage):
    path = tmp_path / "K.zarr"
    ntkest.ntk(J, out=path, memory=SMALL)
    chunk, mark, about = path / "c" / "0" / "1", path / store.OWN / "done" / "0.1", path / store.OWN / "kernel.json"
    if damage == "changed":
        content = bytearray(chunk.read_bytes())
        content[100] ^= 1
        chunk.write_bytes(content)
    elif damage == "cut":
        chunk.write_bytes(chunk.read_bytes()[:-8])
    elif damage == "gone":
        chunk.unlink()
    elif damage == "mark":
        mark.write_text("{}")
    elif damage == "description":
        about.write_text(about.read_text()[:-10])
    else:
        about.write_text(about.read_text().replace(KERNEL.format, "ntkest-kernel/0"))
    words = {"description": "cannot be read", "format": "this version writes"}.get(damage, "damaged")
    with pytest.raises(ntkest.NTKError, match=words):
        ntkest.ntk(J, out=path)
    np.testing.assert_allclose(ntkest.ntk(J, out=path, force=True)[:], A @ A.T, rtol=1e-12, atol=1e-12)


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    path, put, written = tmp_path / "K.zarr", store._put, []

    def full(array, corner, tile):
        written.append(corner)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(array, corner, tile)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_put", full)
        with pytest.raises(ntkest.NTKError, match=r"no space left on the disk; 3 of \d+ tiles .* are finished"):
            ntkest.ntk(J, out=path, memory=SMALL)
    seen = []
    ntkest.ntk(J, out=path, progress=lambda done, total: seen.append(done))
    assert seen[0] == 3
    ntkest.ntk(J, out=tmp_path / "whole.zarr", memory=SMALL)
    assert files(path) == files(tmp_path / "whole.zarr")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no locks on this system")
def test_two_processes_do_not_write_the_same_kernel(tmp_path):
    path = tmp_path / "K.zarr"

    def again(done, total):
        if done == 2:
            with pytest.raises(ntkest.NTKError, match="written by another process"):
                ntkest.ntk(J, out=path)

    ntkest.ntk(J, out=path, memory=SMALL, progress=again)


def test_the_sums_beside_the_tiles_are_trace_and_norm(tmp_path):
    ntkest.ntk(J, by="layer", out=tmp_path / "K.zarr", memory=SMALL)
    found = moments(store.opened(tmp_path / "K.zarr", KERNEL))
    for (trace, square), blocks in zip(found, (A[:, :30], A[:, 30:]), strict=True):
        assert trace == pytest.approx(np.sum(blocks**2), rel=1e-12)
        assert square == pytest.approx(np.sum((blocks @ blocks.T) ** 2), rel=1e-12)


def test_a_process_that_is_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    killed_and_whole(tmp_path, "ntkest.ntk(J, out=sys.argv[1], memory=10_000_000)")
