"""Projections whose pieces are tasks for workers, which build the model themselves."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import ntkest
from tests.stores import A, files

pytest.importorskip("zarr")

SMALL = 25_000


def expected(kind):
    J = ntkest.from_jacobian({"a.w": A[:, :25], "b": A[:, 25:]}, output_shape=(20, 3))
    return ntkest.project(J, 30, kind, 4)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "sjlt"])
def test_processes_give_the_features(target, pool, kind):
    seen = []
    found = ntkest.project(
        target("make"), 30, kind, 4, client=pool, memory=SMALL, progress=lambda *done: seen.append(done)
    )
    np.testing.assert_allclose(found, expected(kind), rtol=1e-12, atol=1e-12)
    assert seen[-1][0] == seen[-1][1] > 2


def test_processes_write_the_bytes_that_one_does(target, pool, tmp_path):
    from ntkest.usercode import linearized

    ntkest.project(linearized(target("make")), 30, seed=4, out=tmp_path / "one.zarr", memory=SMALL)
    found = ntkest.project(target("make"), 30, seed=4, out=tmp_path / "two.zarr", client=pool, memory=SMALL)
    np.testing.assert_allclose(found[:], expected("rademacher"), rtol=1e-12, atol=1e-12)
    assert files(tmp_path / "one.zarr") == files(tmp_path / "two.zarr")
    with pytest.raises(ntkest.NTKError, match="holds another projection: seed="):
        ntkest.project(target("make"), 30, seed=5, out=tmp_path / "two.zarr", client=pool)


def test_a_worker_that_dies_takes_the_pool_with_it_and_keeps_what_is_finished(target, tmp_path):
    path = tmp_path / "g.zarr"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

        def kill(done, total):
            if done:
                for process in pool._processes.values():
                    process.kill()

        with pytest.raises(ntkest.NTKError, match="a worker died"):
            ntkest.project(target("slow"), 30, out=path, client=pool, memory=SMALL, progress=kill)
    seen = []
    with ThreadPoolExecutor(1) as executor:
        ntkest.project(target("slow"), 30, out=path, client=executor, progress=lambda done, total: seen.append(done))
        ntkest.project(target("slow"), 30, out=tmp_path / "one.zarr", client=executor, memory=SMALL)
    assert seen[0] > 0
    assert files(path) == files(tmp_path / "one.zarr")


def test_a_model_that_every_worker_makes_anew_is_refused(target, turns):
    with pytest.raises(ntkest.NTKError, match=r"made something else on another worker .*seed"):
        ntkest.project(target("unseeded"), 30, client=turns, memory=SMALL)


def test_errors_of_workers_are_told(target):
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ntkest.NTKError, match="dim=41 is above the 40 parameters"):
            ntkest.project(target("make"), 41, client=executor)
        with pytest.raises(ntkest.NTKError, match="batch_axis="):
            ntkest.project(target("interacting"), 5, client=executor)
        with pytest.raises(ntkest.NTKError, match="workers build the model themselves"):
            ntkest.project(ntkest.from_jacobian(A, output_shape=(20, 3)), 5, client=executor)
    with pytest.raises(ntkest.NTKError, match="client= takes"):
        ntkest.project(target("make"), 5, client="localhost:8786")
