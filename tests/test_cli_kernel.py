"""`ntkest kernel`: what it writes and prints, going on, and one line for each thing that goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ntkest
from ntkest.report.cli import main

zarr = pytest.importorskip("zarr")

MODEL = """
import numpy as np
import ntkest

A = np.random.default_rng(3).standard_normal((24, 90))


def make():
    return ntkest.from_jacobian({"first.weight": A[:, :30], "first.bias": A[:, 30:40], "last": A[:, 40:]}, (8, 3))


def some():
    return ntkest.from_jacobian({"first.weight": A[:9, :30], "first.bias": A[:9, 30:40], "last": A[:9, 40:]}, (3, 3))


def whole():
    return ntkest.from_jacobian(A)


def broken():
    B = A.copy()
    B[4] = np.nan
    return ntkest.from_jacobian(B, (8, 3))
"""
A = np.random.default_rng(3).standard_normal((24, 90))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(name):
    return zarr.open_array(name, mode="r")[:]


def test_the_kernel_is_written_and_described(folder, capsys):
    assert main(["kernel", "model.py:make", "--out", "K.zarr", "--json", "K.json"]) == 0
    np.testing.assert_allclose(stored("K.zarr"), A @ A.T, rtol=1e-12, atol=1e-12)
    printed = capsys.readouterr().out
    assert "24 × 24 float64, outputs: full" in printed
    assert "1 tile computed in this process" in printed
    document = json.loads((folder / "K.json").read_text())
    K = A @ A.T
    found = document["results"]["kernels"]["kernel"]
    assert found["trace"] == pytest.approx(np.trace(K))
    assert found["frobenius_norm"] == pytest.approx(np.linalg.norm(K))
    assert found["effective_rank"] == pytest.approx(np.trace(K) ** 2 / np.linalg.norm(K) ** 2)
    assert main(["kernel", "model.py:make", "--out", "K.zarr"]) == 0
    assert "0 tiles computed in this process, 1 were there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outputs", "value"), [("sum", "sum"), ("pntk", "pntk"), ("2", 2), ("-1", -1), ("signs:3", "signs:3")]
)
def test_outputs_are_those_of_python(folder, outputs, value):
    command = ["kernel", "model.py:make", f"--outputs={value}", "--out", "K.zarr", "--memory", "100kB", "--seed", "7"]
    assert main(command) == 0
    J = ntkest.from_jacobian(A, (8, 3))
    np.testing.assert_allclose(stored("K.zarr"), ntkest.ntk(J, outputs=value, seed=7), rtol=1e-12, atol=1e-12)


def test_layers_and_other_inputs(folder, capsys):
    assert main(["kernel", "model.py:make", "--by", "layer", "--out", "parts.zarr"]) == 0
    assert "by layer" in capsys.readouterr().out
    np.testing.assert_allclose(stored("parts.zarr/last"), A[:, 40:] @ A[:, 40:].T, rtol=1e-12, atol=1e-12)
    assert main(["kernel", "model.py:make", "--other", "model.py:some", "--out", "across.zarr"]) == 0
    np.testing.assert_allclose(stored("across.zarr"), A @ A[:9].T, rtol=1e-12, atol=1e-12)
    printed = capsys.readouterr().out
    assert "Frobenius norm" in printed
    assert "trace" not in printed


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["model.py:make"], "--out"),
        (["model.py:make", "--out", "model.py"], "is no kernel of ntkest"),
        (["model.py:make", "--out", "K.zarr", "--outputs", "some"], "outputs= takes"),
        (["model.py:make", "--out", "K.zarr", "--outputs", "3"], "none of the 3 outputs"),
        (["model.py:make", "--out", "K.zarr", "--memory", "much"], "memory= takes"),
        (["model.py:make", "--out", "K.zarr", "--workers", "0"], "positive whole number"),
        (["model.py:whole", "--out", "K.zarr"], "batch_axis="),
        (["model.py:broken", "--out", "K.zarr"], "NaN or infinity"),
        (["model.py:none", "--out", "K.zarr"], "there is no 'none'"),
    ],
)
def test_each_bad_input_is_one_line_and_status_2(folder, capsys, argv, said):
    assert main(["kernel", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ntkest: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert not (folder / "K.zarr").exists()


def test_another_kernel_is_replaced_by_force_only(folder, capsys):
    assert main(["kernel", "model.py:make", "--out", "K.zarr"]) == 0
    assert main(["kernel", "model.py:make", "--outputs", "sum", "--out", "K.zarr"]) == 2
    assert "outputs= was another" in capsys.readouterr().err
    assert stored("K.zarr").shape == (24, 24)
    assert main(["kernel", "model.py:make", "--outputs", "sum", "--out", "K.zarr", "--force"]) == 0
    assert stored("K.zarr").shape == (8, 8)


@pytest.mark.filterwarnings("ignore")  # dask's own, about ports and processes that went away
def test_workers_write_the_same_kernel(folder, capsys):
    pytest.importorskip("distributed")
    assert main(["kernel", "model.py:make", "--out", "K.zarr", "--workers", "2", "--memory", "400kB"]) == 0
    np.testing.assert_allclose(stored("K.zarr"), A @ A.T, rtol=1e-12, atol=1e-12)
    assert "by 2 workers" in capsys.readouterr().out
    assert main(["kernel", "model.py:broken", "--out", "B.zarr", "--workers", "2"]) == 2
    assert "NaN or infinity" in capsys.readouterr().err
