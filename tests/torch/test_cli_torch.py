"""`ntkest report` on a torch module: NumPy targets find its namespace and dtype, and layers have its names."""

from __future__ import annotations

import json

import numpy as np
import torch

import ntkest
from ntkest.report.cli import main

MODEL = """
import numpy as np
import torch


def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    return model, torch.randn(8, 5)


def tensor():
    return torch.arange(8) % 3


def noisy():
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Dropout()), torch.randn(8, 5)
"""


def test_numpy_and_torch_targets_give_the_same_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    labels = np.arange(8) % 3
    np.save("labels.npy", labels)
    np.save("hot.npy", np.eye(3)[labels] - 1 / 3)
    values = []
    for index, source in enumerate(("labels.npy", "hot.npy", "model.py:tensor")):
        argv = ["report", "model.py:make", "--targets", source, "--by", "layer", "--method", "exact"]
        assert main([*argv, "--json", f"{index}.json"]) == 0
        results = json.loads((tmp_path / f"{index}.json").read_text())["results"]
        values.append(results["estimates"]["alignment"]["value"])
    names = {}
    exec(MODEL, names)
    J = ntkest.linearize(*names["make"]())
    wanted = ntkest.summary(J, torch.tensor(labels), by="layer", method="exact")
    np.testing.assert_allclose(values, float(wanted["alignment"]), rtol=1e-6)
    assert set(results["estimates"]["trace"]["parts"]) == {"0", "2"}


def test_a_report_in_float32_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    assert main(["report", "model.py:make", "--rtol", "0.3", "--method", "reverse", "--json", "a.json"]) == 0
    assert main(["report", "--repeat", "a.json"]) == 0


def test_a_model_with_dropout_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    assert main(["report", "model.py:noisy"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "eval()" in error
