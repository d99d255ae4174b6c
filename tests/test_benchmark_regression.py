"""The benchmark of regression: its page and figure come from the numbers, and its two networks are the same one."""

import json

import numpy as np
import pytest

from benchmarks import regression, regression_data, regression_page
from benchmarks.regression_worker import perform

pytest.importorskip("sklearn")


def row(framework, point, kernel, accuracy):
    return {
        "framework": framework,
        "point": point,
        "kernel": kernel,
        "accuracy": {"kernel": accuracy, "from the network": 0.5},
        "left_out_accuracy": None if kernel == "full" else 0.91,
        "mean_squared_error": 0.0123,
        "kernel_seconds": 1.5,
        "regression_seconds": 2.5,
        "kernel_mebibytes": 1234.0,
        "entries_mebibytes": 12.0,
    }


FOUND = {
    "benchmark": "regression",
    "command": "python -m benchmarks regression",
    "images": 1797,
    "train": 1440,
    "epochs": 3,
    "channels": [1, 16, 32],
    "classes": 10,
    "threads": 2,
    "load": 1.25,
    "machine": "x86_64",
    "versions": {"ntkest": "0.1.0"},
    "networks": {"torch": {"seconds": 3.0, "initial": {"test": 0.1}, "trained": {"test": 0.987}}},
    "rows": [row("torch", "initial", "pNTK", 0.961), row("torch", "trained", "full", 0.972)],
}


def test_the_page_says_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    regression_page.write(FOUND, tmp_path)
    page = (tmp_path / "regression.md").read_text()
    assert "1,440 for training and 357 held out" in page
    assert "The trained network reads 98.7%" in page
    assert "| pNTK, before training | 96.1% | 50.0% | 91.0% | 0.0123 | 1.5 | 2.5 | 1,234 | 12 |" in page
    assert "| full, after training | 97.2% | 50.0% | – |" in page
    assert (tmp_path / "regression.svg").read_text().startswith("<?xml")


@pytest.mark.needs("torch", "jax")
def test_both_frameworks_have_the_same_network_and_training():
    from benchmarks import regression_jax, regression_torch

    images, labels = regression_data.digits()
    start, aims = regression_data.initial(), regression_data.targets(labels[:64])
    for params in (start, regression_torch.train(start, images[:64], aims, 1)):
        first, second = (n.linearization(params, images[:5]).outputs for n in (regression_torch, regression_jax))
        np.testing.assert_allclose(np.asarray(first), np.asarray(second), atol=1e-5)
    trained = [n.train(start, images[:64], aims, 2) for n in (regression_torch, regression_jax)]
    for name, array in trained[0].items():
        np.testing.assert_allclose(array, trained[1][name], atol=1e-4)
        assert not np.array_equal(array, start[name])


@pytest.mark.needs("torch")
def test_a_small_run_writes_its_files(tmp_path, monkeypatch):
    """In this process: new ones each import torch."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(regression, "_run", lambda task, threads: json.loads(json.dumps(perform(task))))
    arguments = ["--images", "60", "--epochs", "1", "--framework", "torch", "--kernel", "full", "--threads", "1"]
    regression.main([*arguments, "--folder", str(tmp_path)])
    found = json.loads((tmp_path / "regression.json").read_text())
    assert [(r["point"], r["kernel"]) for r in found["rows"]] == [
        (point, kernel) for point in ("initial", "trained") for kernel in ("trace", "full")
    ]
    trace, full = found["rows"][:2]
    assert full["ridge"] == trace["ridge"]
    assert full["diagonal"] == pytest.approx(trace["diagonal"], rel=1e-4)
    assert full["entries_mebibytes"] == pytest.approx((480 * 480 + 120 * 480) * 4 / 2**20)
    before = (tmp_path / "regression.md").read_text()
    regression.main(["--render", "--folder", str(tmp_path)])
    assert (tmp_path / "regression.md").read_text() == before
