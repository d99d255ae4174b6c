"""The map of sides: its Jacobians are those of its networks, and a small run makes its page and figures."""

import json

import numpy as np
import pytest

from benchmarks import sides, sides_page
from benchmarks.sides_cells import Place, places
from benchmarks.sides_networks import DERIVATIVES, PANELS, Network, data, initial, jacobian

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.mark.parametrize("network", [Network("rnn", 3, 2, 4), Network("mlp", 4, 3)], ids=lambda n: n.kind)
def test_a_jacobian_is_that_of_finite_differences(network):
    inputs, _ = data(network)
    params = {k: v + 0.1 for k, v in initial(network).items()}  # biases that are not zero
    outputs, found = DERIVATIVES[network.kind](params, inputs)
    columns = []
    for name in (k for k in params if k.startswith("weight")):
        for index in np.ndindex(params[name].shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {**params, name: params[name].copy()}
                moved[name][index] += step
                ends.append(DERIVATIVES[network.kind](moved, inputs)[0])
            columns.append((ends[0] - ends[1]).ravel() / 2e-6)
    assert found.shape == network.shape == (outputs.size, len(columns))
    np.testing.assert_allclose(found, np.stack(columns, axis=1), atol=1e-8)


def test_brief_training_lowers_the_loss():
    for network in (Network("rnn", 4, 2, 6, trained=True), Network("mlp", 4, 12, trained=True)):
        _, losses = jacobian(network)
        assert losses["loss after"] < 0.9 * losses["loss before"]


def test_the_map_spans_the_ratios_that_it_says():
    ratios = [n.shape[0] / n.shape[1] for panel in PANELS.values() for n in panel]
    assert (min(ratios) < 0.06, max(ratios) > 19.9) == (True, True)
    assert max(n.shape[0] * n.shape[1] for panel in PANELS.values() for n in panel) <= 4e6


def test_variances_of_one_sided_traces_are_those_of_the_formula():
    J = np.random.default_rng(0).standard_normal((12, 30))
    expected = sides.facts_of(J)["reverse / forward"]
    spreads = []
    for A in (J.T, J):  # the images of cotangents, and of tangents
        signs = np.sign(np.random.default_rng(1).standard_normal((A.shape[1], 40000)))
        spreads.append(np.std(np.sum((A @ signs) ** 2, axis=0)))
    assert spreads[0] / spreads[1] == pytest.approx(expected, rel=0.03)


def test_the_map_runs_resumes_and_makes_its_page(tmp_path, capfd):
    arguments = ["--small", "--seeds", "2", "--budgets", "10", "20", "1000", "--jobs", "1"]
    arguments += ["--work", str(tmp_path / "work"), "--folder", str(tmp_path)]
    sides.main(arguments)
    found = json.loads((tmp_path / "sides.json").read_text())
    assert all(
        len(cell["errors"]) == 2 and cell["used"] <= cell["passes"] for cell in found["cells"] if "errors" in cell
    )
    assert {cell["method"] for cell in found["cells"]} == {*sides.METHODS, sides.WITH_EXAMPLES}
    assert all(place.exact == (place.passes == 1000) for place in places(found, "trace").values())
    page = (tmp_path / "sides.md").read_text()
    assert page == sides_page.markdown(found)
    assert (tmp_path / "sides.svg").read_text().count("<svg") == 1
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    sides.main(arguments)
    assert kept == {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    assert json.loads((tmp_path / "sides.json").read_text())["cells"] == found["cells"]
    capfd.readouterr()


def test_a_place_is_won_by_the_best_family_and_auto_held_against_it():
    errors = {"reverse": 0.2, "forward": 0.1, "xnystrace": 0.3, "xtrace": 0.05, "hutch++": 0.08, "auto": 0.1}
    place = Place("some", 100, errors, {"xnystrace": 20, "forward": 10})
    assert (place.winner, place.best, place.auto_family) == ("leave-one-out", "xtrace", "leave-one-out")
    assert (place.factor, place.auto, place.gain) == pytest.approx((1.6, 2.0, 2.0))
