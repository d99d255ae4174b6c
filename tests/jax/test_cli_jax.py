"""`ntkest report` on a jax function: NumPy targets find its namespace and dtype."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

import ntkest
from ntkest.report.cli import main

MODEL = """
import jax
import jax.numpy as jnp


def make():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"first": jax.random.normal(keys[0], (5, 7)), "second": jax.random.normal(keys[1], (7, 3))}
    return (lambda p, x: jnp.tanh(x @ p["first"]) @ p["second"]), params, jax.random.normal(keys[2], (8, 5))


def array():
    return jnp.arange(8) % 3
"""


def test_numpy_and_jax_targets_give_the_same_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    labels = np.arange(8) % 3
    np.save("labels.npy", labels)  # 64 bits: jax has 32
    np.save("hot.npy", np.eye(3)[labels] - 1 / 3)
    values = []
    for index, source in enumerate(("labels.npy", "hot.npy", "model.py:array")):
        argv = ["report", "model.py:make", "--targets", source, "--by", "layer", "--method", "exact"]
        assert main([*argv, "--json", f"{index}.json"]) == 0
        results = json.loads((tmp_path / f"{index}.json").read_text())["results"]
        values.append(results["estimates"]["alignment"]["value"])
    names = {}
    exec(MODEL, names)
    wanted = ntkest.alignment(ntkest.linearize(*names["make"]()), jnp.asarray(labels), method="exact")
    assert values == pytest.approx([float(wanted)] * 3, rel=1e-5)
    assert set(results["estimates"]["trace"]["parts"]) == {"first", "second"}


def test_a_report_in_float32_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    assert main(["report", "model.py:make", "--passes", "8", "--method", "reverse", "--json", "a.json"]) == 0
    assert main(["report", "--repeat", "a.json"]) == 0
