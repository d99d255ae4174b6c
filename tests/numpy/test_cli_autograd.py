"""`ntkest demo`, which runs on HIPS autograd, and `ntkest report` on a function of NumPy arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ntkest
from ntkest.report.cli import main

MODEL = """
import autograd.numpy as anp
import numpy as np

rng = np.random.default_rng(0)
X = rng.standard_normal((6, 4))
PARAMS = {"first": {"w": rng.standard_normal((4, 5))}, "second": {"w": rng.standard_normal((5, 3))}}


def network(params, x):
    return anp.dot(anp.tanh(anp.dot(x, params["first"]["w"])), params["second"]["w"])


def make():
    return network, PARAMS, X


def fails():
    return (lambda params, x: anp.dot(x, params["second"]["w"])), PARAMS, X


def whole():
    return network, {"first": {"w": np.ones((4, 5), int)}, "second": {"w": np.ones((5, 3), int)}}, X
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_function_of_numpy_arrays_is_reported_by_layer(folder):
    np.save(folder / "y.npy", np.arange(6) % 3)
    argv = ["report", "model.py:make", "--targets", "y.npy", "--by", "layer", "--method", "exact", "--json", "a.json"]
    assert main(argv) == 0
    names = {}
    exec(MODEL, names)
    (A,) = (np.concatenate(ntkest.linearize(*names["make"]()).vjp(np.eye(18)), axis=1),)
    found = document(folder / "a.json")["results"]["estimates"]["trace"]
    assert found["value"] == pytest.approx(np.sum(A**2), rel=1e-12)
    assert found["parts"]["first"]["value"] == pytest.approx(np.sum(A[:, :20] ** 2), rel=1e-12)
    assert found["parts"]["second"]["value"] == pytest.approx(np.sum(A[:, 20:] ** 2), rel=1e-12)


@pytest.mark.parametrize(
    ("target", "said"), [("fails", "ValueError: shapes (6,4) and (5,3) not aligned"), ("whole", "parameters")]
)
def test_a_model_that_fails_is_one_line(folder, capsys, target, said):
    assert main(["report", f"model.py:{target}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ntkest: error: ")
    assert error.count("\n") == 1
    assert said in error


# The demo -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """The document of a small demo, and what it printed."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demo", "--rtol", "0.2", "--seed", "3", "--json", "demo.json"]) == 0
    return document(folder / "demo.json"), folder / "demo.json"


def test_the_demo_learns(demonstrated):
    accuracy = demonstrated[0]["results"]["accuracy"]
    assert accuracy["before"] < 0.3
    assert accuracy["after"] > 0.95


def test_the_numbers_of_the_demo_are_those_of_direct_calls(demonstrated):
    from ntkest.report import demo, digits

    results = demonstrated[0]["results"]
    data, params = digits.load_digits(3), digits.initial(3)
    images, labels = data.images[: demo.IMAGES], data.labels[: demo.IMAGES]
    start = ntkest.linearize(digits.network, params, images)
    *_, trained = digits.train(ntkest.linearize(digits.network, params, data.train_images), data.train_labels, params)
    end = ntkest.linearize(digits.network, trained, images)
    for when, J in (("before", start), ("after", end)):
        direct = ntkest.summary(J, labels, rtol=0.2, seed=3, by="layer")
        for name, estimate in direct.items():
            found = results["kernels"][when]["estimates"][name]
            assert found["value"] == pytest.approx(float(estimate), rel=1e-9)
            assert found["std_error"] == pytest.approx(float(estimate.std_error), rel=1e-6)
            assert found["parts"]["head"]["value"] == pytest.approx(float(estimate.parts["head"]), rel=1e-9)
    between = ntkest.alignment(end, start, rtol=0.2, seed=3, by="layer")
    assert results["between"]["value"] == pytest.approx(float(between), rel=1e-9)
    assert results["between"]["passes"] == between.passes


def test_gradient_descent_through_vjp_is_that_of_the_loss():
    pytest.importorskip("sklearn")
    import autograd.numpy as anp
    from autograd import grad

    from ntkest.report import digits

    rng = np.random.default_rng(0)
    images, labels, params = rng.standard_normal((7, 64)), rng.integers(0, 10, 7), digits.initial(0)

    def loss(p):
        logits = digits.network(p, images)
        return anp.mean(anp.log(anp.sum(anp.exp(logits), axis=1)) - logits[np.arange(7), labels])

    (after,) = digits.train(ntkest.linearize(digits.network, params, images), labels, params, steps=1)
    gradient = grad(loss)(params)
    for layer, parts in params.items():
        for part, values in parts.items():
            np.testing.assert_allclose(after[layer][part], values - digits.RATE * gradient[layer][part], atol=1e-12)


def test_the_demo_repeats_identically(demonstrated, capsys):
    assert main(["report", "--repeat", str(demonstrated[1])]) == 0
    assert "identical" in capsys.readouterr().out.replace("\n", " ")


def test_the_demo_prints_every_quantity_by_layer_and_its_cost(demonstrated, capsys):
    assert main(["demo", "--rtol", "0.2", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for label in ("trace", "Frobenius norm", "effective rank", "alignment with the labels"):
        assert sum(line.startswith(f"  {label} ") and line.count("±") == 2 for line in lines) == 3
    assert sum(line.startswith("  alignment with the start") and line.count("±") == 1 for line in lines) == 3
    assert [line for line in lines if line.startswith(("whole", "layer", "cost"))] == [
        "whole network",
        "layer hidden",
        "layer head",
        "cost",
    ]
    assert any("held-out digits" in line and "→" in line for line in lines)


def test_ctrl_c_after_the_first_kernel_keeps_it(capsys, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    from ntkest.report import digits

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "train", stopped)
    assert main(["demo", "--rtol", "0.3", "--json", str(tmp_path / "part.json")]) == 130
    printed = capsys.readouterr().out
    assert "Interrupted: what was finished is shown." in printed
    assert "before training" in printed
    assert "after training" not in printed
    assert list(document(tmp_path / "part.json")["results"]["kernels"]) == ["before"]


def test_the_demo_draws_both_kernels(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert main(["demo", "--rtol", "0.3", "--plot", str(tmp_path / "demo.svg")]) == 0
    drawn = (tmp_path / "demo.svg").read_text(encoding="utf-8")
    for text in ("before training", "after training", "effective rank", "alignment with the start", "hidden"):
        assert f"<!-- {text} -->" in drawn
