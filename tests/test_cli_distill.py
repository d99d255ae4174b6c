"""`ntkest distill`: what it prints and writes, and one line for each thing that goes wrong."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest

import ntkest
from ntkest.report.cli import main

MODEL = """
import numpy as np
import ntkest

DRAW = np.random.default_rng(3)
A, B = DRAW.standard_normal((24 * 3, 90)), DRAW.standard_normal((9 * 3, 90))
LABELS = np.arange(24) % 3


def linearized(jacobian):
    J = ntkest.from_jacobian(jacobian, (len(jacobian) // 3, 3))
    J.outputs = jacobian[:, 0].reshape(-1, 3)
    return J


def make():
    return linearized(A)


def other():
    return linearized(B)


def labels():
    return LABELS


def few():
    return np.minimum(LABELS, 1)


def zero():
    return ntkest.from_jacobian(A, (24, 3))


def nothing():
    pass


def alone():
    return (make,)
"""
COMMAND = ["distill", "model.py:make", "--dim", "40", "--size", "6", "--clusters", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "taken.npz").write_text("mine", encoding="utf-8")
    np.save(tmp_path / "images.npy", np.zeros((4, 5)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NTKEST_TRACEBACK", raising=False)
    return tmp_path


def names():
    found = {}
    exec(MODEL, found)
    return found


def test_it_is_what_python_distills(folder, capsys):
    argv = [*COMMAND, "--test", "model.py:other", "--test-labels", "labels.npy", "--out", "d.npz", "--json", "d.json"]
    np.save("labels.npy", np.arange(9) % 3)
    assert main(argv) == 0
    model = names()
    direct = ntkest.distill(model["make"](), dim=40, size=6, clusters=2)
    scores = direct.metrics(model["other"](), np.arange(9) % 3)
    document = json.loads((folder / "d.json").read_text(encoding="utf-8"))
    found = document["results"]
    assert found["scores"] == scores.to_dict()
    assert found["about"] == direct.about
    assert found["ledger"] == direct.ledger.to_dict()
    assert found["analysis"] == direct.analysis.to_dict()
    assert (document["command"], document["options"]["test"]) == ("distill", "model.py:other")
    stored = ntkest.DistilledNTK.load("d.npz")
    np.testing.assert_array_equal(stored.predict(model["other"]()), direct.predict(model["other"]()))
    assert stored.analysis.to_dict() == direct.analysis.to_dict()
    printed = capsys.readouterr().out
    assert "90 parameters, 3 classes, 24 examples" in printed
    assert "local-global: 6 gradients" in printed
    assert f"{scores.fidelity:.4g}" in next(line for line in printed.splitlines() if line.startswith("fidelity"))
    assert "pNTK, in factors" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_options_reach_the_pipeline(folder):
    argv = ["distill", "model.py:make", "--labels", "model.py:labels", "--data", "kmeans", "--points", "4"]
    argv += ["--dim", "30", "--kind", "sjlt", "--compression", "global", "--size", "5", "--ridge", "0.01"]
    argv += ["--seed", "7", "--memory", "1MB", "--batch", "3", "--out", "d.npz"]
    assert main(argv) == 0
    direct = ntkest.distill(
        names()["make"](),
        labels=np.arange(24) % 3,
        data="kmeans",
        points=4,
        dim=30,
        kind="sjlt",
        compression="global",
        size=5,
        ridge=0.01,
        seed=7,
        memory="1MB",
        batch=3,
    )
    stored = ntkest.DistilledNTK.load("d.npz")
    np.testing.assert_array_equal(stored.features, direct.features)
    assert stored.to_dict() == json.loads(json.dumps(direct.to_dict()))


def test_thresholds_reach_the_compression(folder):
    argv = ["distill", "model.py:make", "--dim", "30", "--variance", "0.7", "--coverage-threshold", "0.4"]
    assert main([*argv, "--clusters", "2", "--json", "d.json"]) == 0
    direct = ntkest.distill(names()["make"](), dim=30, variance=0.7, coverage_threshold=0.4, clusters=2)
    found = json.loads((folder / "d.json").read_text(encoding="utf-8"))["results"]
    assert found["kinds"] == list(direct.compression.kinds)


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="plots need matplotlib")
def test_the_analysis_is_drawn(folder):
    assert main([*COMMAND, "--plot", "d.png"]) == 0
    assert (folder / "d.png").read_bytes().startswith(b"\x89PNG")


def test_files_are_replaced_only_by_force(folder, capsys):
    assert main([*COMMAND, "--out", "taken.npz"]) == 2
    assert "give --force" in capsys.readouterr().err
    assert (folder / "taken.npz").read_text(encoding="utf-8") == "mine"
    assert main([*COMMAND, "--out", "taken.npz", "--force"]) == 0
    assert ntkest.DistilledNTK.load("taken.npz").size == 6
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_store_is_gone_on_with(folder):
    pytest.importorskip("zarr")
    argv = ["distill", "model.py:make", "--dim", "40", "--size", "6", "--clusters", "2", "--store", "features.zarr"]
    for name in ("first.json", "second.json"):
        assert main([*argv, "--json", name]) == 0
    first, second = (json.loads((folder / name).read_text())["results"] for name in ("first.json", "second.json"))
    assert first["analysis"] == second["analysis"]
    assert second["ledger"]["distilled"]["gradients"] < first["ledger"]["distilled"]["gradients"]


BAD = [
    ([], "TARGET"),
    (["model.py:mak"], "there is no 'mak'"),
    (["model.py:nothing"], "returned a NoneType; it should return (model, inputs)"),
    (["model.py:alone"], "returned a tuple"),
    (["model.py:zero"], "all outputs are zero"),
    (["model.py:make", "--data", "magic", "--points", "3"], "magic"),
    (["model.py:make", "--data", "kmeans"], "points= is needed"),
    (["model.py:make", "--data", "kmeans", "--points", "9", "--labels", "model.py:labels"], "class 0 has 8 examples"),
    (["model.py:make", "--labels", "model.py:few"], "no example of class 2"),
    (["model.py:make", "--labels", "none.npy"], "--labels: there is no file none.npy"),
    (["model.py:make", "--dim", "91"], "dim=91"),
    (["model.py:make", "--dim", "0"], "a positive whole number is needed"),
    (["model.py:make", "--kind", "magic"], "magic"),
    (["model.py:make", "--compression", "magic"], "compression= takes one of"),
    (["model.py:make", "--size", "99"], "size=99"),
    (["model.py:make", "--clusters", "99"], "clusters=99"),
    (["model.py:make", "--ridge", "0"], "a positive number is needed"),
    (["model.py:make", "--memory", "much"], "memory= takes"),
    (["model.py:make", "--test-labels", "model.py:labels"], "there are none"),
    (["model.py:make", "--test", "none.npy"], "--test: there is no file none.npy"),
    (["model.py:make", "--test", "images.npy", "--clusters", "2"], "this distilled kernel has no model"),
    (["model.py:make", "--out", "taken.npz"], "give --force"),
    (["model.py:make", "--out", "no/such/file.npz"], "there is no folder"),
    (["model.py:make", "--plot", "a.gif"], "ends in .png"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=[" ".join(argv) or "nothing" for argv, _ in BAD])
def test_each_bad_input_is_one_line_and_status_2(folder, capsys, argv, said):
    assert main(["distill", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ntkest: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
