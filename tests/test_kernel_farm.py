"""Kernels whose tiles are tasks for workers, which build the model themselves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ntkest
from tests.stores import A, files

pytest.importorskip("zarr")

SMALL = 60_000


def test_processes_give_the_kernel(target, pool):
    seen = []
    K = ntkest.ntk(target("make"), client=pool, memory=SMALL, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(K, A @ A.T, rtol=1e-12, atol=1e-12)
    assert seen[-1][0] == seen[-1][1] > 3
    parts = ntkest.ntk(target("make"), by="layer", client=pool, memory=SMALL)
    np.testing.assert_allclose(parts["b"], A[:, 25:] @ A[:, 25:].T, rtol=1e-12, atol=1e-12)
    across = ntkest.pntk(target("make"), target("some"), client=pool)
    blocks = (A @ A[:12].T).reshape(20, 3, 4, 3).sum((1, 3)) / 3
    np.testing.assert_allclose(across, blocks, rtol=1e-12, atol=1e-12)
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(
        ntkest.ntk(target("make"), outputs=v, client=pool),
        np.einsum("noNO,o,O->nN", (A @ A.T).reshape(20, 3, 20, 3), v, v),
        atol=1e-12,
    )


def test_processes_write_the_bytes_that_one_does(target, pool, tmp_path):
    from ntkest.usercode import linearized

    ntkest.ntk(linearized(target("make")), out=tmp_path / "one.zarr", memory=SMALL)
    K = ntkest.ntk(target("make"), out=tmp_path / "two.zarr", client=pool, memory=SMALL)
    np.testing.assert_allclose(K[:], A @ A.T, rtol=1e-12, atol=1e-12)
    assert files(tmp_path / "one.zarr") == files(tmp_path / "two.zarr")


def test_threads_will_do(target):
    with ThreadPoolExecutor(2) as executor:
        K = ntkest.ntk(target("make"), client=executor, memory=SMALL)
    np.testing.assert_allclose(K, A @ A.T, rtol=1e-12, atol=1e-12)


def test_a_model_that_every_worker_makes_anew_is_refused(target, turns):
    with pytest.raises(ntkest.NTKError, match=r"made something else on another worker .*seed"):
        ntkest.ntk(target("unseeded"), client=turns, memory=SMALL)


def test_a_worker_that_dies_takes_the_pool_with_it_and_keeps_what_is_finished(target, tmp_path):
    path = tmp_path / "K.zarr"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

        def kill(done, total):
            if done:
                for process in pool._processes.values():
                    process.kill()

        with pytest.raises(ntkest.NTKError, match="a worker died"):
            ntkest.ntk(target("slow"), out=path, client=pool, memory=SMALL, progress=kill)
    seen = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        ntkest.ntk(target("slow"), out=path, client=pool, memory=SMALL, progress=lambda done, total: seen.append(done))
    assert seen[0] > 0
    with ThreadPoolExecutor(1) as executor:
        ntkest.ntk(target("make"), out=tmp_path / "one.zarr", client=executor, memory=SMALL)
    assert files(path) == files(tmp_path / "one.zarr")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda target: lambda: None, "workers cannot import"),
        (lambda target: 3, "workers build the model themselves"),
        (lambda target: ntkest.from_jacobian(A, output_shape=(20, 3)), "workers build the model themselves"),
        (lambda target: target("missing"), "there is no 'missing'"),
        (lambda target: target("interacting"), "batch_axis="),
        (lambda target: "nowhere:make", "there is no module 'nowhere'"),
    ],
    ids=["lambda", "number", "linearization", "missing", "interacting", "module"],
)
def test_what_workers_cannot_build_is_refused(target, factory, message):
    with ThreadPoolExecutor(1) as executor, pytest.raises(ntkest.NTKError, match=message):
        ntkest.ntk(factory(target), client=executor)


def test_a_client_is_an_executor():
    with pytest.raises(ntkest.NTKError, match="client= takes"):
        ntkest.ntk("model:make", client="localhost:8786")


def test_a_function_is_found_by_its_name():
    from ntkest.usercode import name_of

    assert name_of(ntkest.ntk) == "ntkest.kernels.exact:ntk"
    assert name_of("model.py:make") == f"{Path.cwd() / 'model.py'}:make"
    assert name_of("package.model:make") == "package.model:make"


@pytest.mark.filterwarnings("ignore")  # dask's own, about ports and processes that went away
def test_a_dask_worker_that_is_killed_changes_nothing(target, tmp_path):
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "K.zarr"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")
    )
    with cluster, distributed.Client(cluster) as client:
        victims = []

        def kill(done, total):
            if done >= 2 and not victims:
                victims.append(next(iter(client.run(os.getpid).values())))
                threading.Timer(0.15, os.kill, (victims[0], signal.SIGKILL)).start()

        K = ntkest.ntk(target("slow"), out=path, client=client, memory=SMALL, progress=kill)
        deadline = time.monotonic() + 30
        while victims[0] in client.run(os.getpid).values() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert victims[0] not in client.run(os.getpid).values()
    np.testing.assert_allclose(K[:], A @ A.T, rtol=1e-12, atol=1e-12)
    with ThreadPoolExecutor(1) as executor:
        ntkest.ntk(target("make"), out=tmp_path / "one.zarr", client=executor, memory=SMALL)
    assert files(path) == files(tmp_path / "one.zarr")
