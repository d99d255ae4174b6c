"""The contest of estimators runs, counts passes as the library reports them, and makes its page from its JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ntkest
from benchmarks import estimators, estimators_page
from benchmarks.contest import CannotRunError
from benchmarks.operators import HELD_OUT, SPECTRA, Operator, operator
from benchmarks.peers_ntkest import counted, estimates, methods
from ntkest.estimators import METHODS


def small(folder):
    """A kernel whose outputs are said to come from 20 examples, for methods that ask for some."""
    return replace(operator("power-1", 60, folder), examples=20)


@pytest.mark.parametrize("name", [*SPECTRA, *HELD_OUT])
def test_an_operator_has_the_spectrum_of_its_name(name, tmp_path):
    values = {**SPECTRA, **HELD_OUT}[name](60)
    subject = operator(name, 60, tmp_path)
    assert np.linalg.eigvalsh(subject.kernel) == pytest.approx(np.sort(values), rel=1e-9, abs=1e-12)
    assert subject.truth["trace"] == pytest.approx(values.sum())
    assert subject.truth["frobenius_norm"] == pytest.approx(np.sqrt((values**2).sum()))


@pytest.mark.parametrize("method", methods(), ids=lambda m: f"{m.name}-{m.quantities[0]}")
def test_a_method_keeps_to_its_budget(method, tmp_path):
    subject = small(tmp_path)
    try:
        run = method.prepare(subject, 40)
        values, passes = run(0)
    except CannotRunError:
        pytest.skip("it has no form for so few passes")
    assert 0 < passes <= 40
    for quantity, value in zip(method.quantities, values, strict=True):
        assert value == pytest.approx(subject.truth[quantity], rel=0.9)


@pytest.mark.parametrize("method", METHODS)
def test_passes_are_counted_as_they_are_reported(method, tmp_path):
    J, counter = counted(small(tmp_path))
    assert ntkest.frobenius_norm(J, method=method, passes=40).passes == counter.passes > 0


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("passes", [24, 40])
def test_a_norm_is_the_same_with_and_without_the_effective_rank(method, passes, tmp_path):
    J, _ = counted(small(tmp_path))
    both = estimates(("frobenius_norm", "effective_rank"), J, method=method, passes=passes, seed=3)
    for name, shared in zip(("frobenius_norm", "effective_rank"), both, strict=True):
        (alone,) = estimates((name,), J, method=method, passes=passes, seed=3)
        assert (float(shared), shared.passes) == (pytest.approx(float(alone), rel=1e-12), alone.passes)


def test_the_contest_runs_resumes_and_makes_its_page(tmp_path, capfd):
    arguments = ["--seeds", "2", "--size", "200", "--budgets", "20", "40"]
    arguments += ["--only", "ntkest", "exponential", "half-rank"]
    files = {"json": tmp_path / "found.json", "markdown": tmp_path / "found.md", "work": tmp_path / "work"}
    arguments += [word for name, file in files.items() for word in (f"--{name}", str(file))]
    estimators.main([*arguments, "--jobs", "1"])
    found = json.loads(files["json"].read_text())
    measured = [cell for cell in found["cells"] if "errors" in cell]
    assert {cell["operator"] for cell in measured} == {"exponential", "half-rank"}
    assert {cell["method"] for cell in measured} >= {"auto", "reverse", "hutch++"}
    assert all(len(cell["errors"]) == 2 and cell["passes"] <= cell["budget"] for cell in measured)
    assert not any(cell.get("failures") for cell in measured)
    assert files["markdown"].read_text() == estimators_page.markdown(found)
    cells = files["work"] / "ntkest.jsonl"
    kept = [line for line in cells.read_text().splitlines() if '"operator"' in line]
    cells.write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:40])  # as an interrupted run leaves it
    estimators.main([*arguments, "--jobs", "1", "--no-stress"])
    again = [line for line in cells.read_text().splitlines() if '"operator"' in line]
    assert again[: len(kept) - 1] == kept[:-1]
    assert len(again) <= len(kept) + 2  # the broken line, and the two quantities of its call
    assert [c["errors"] for c in json.loads(files["json"].read_text())["cells"] if "errors" in c] == [
        c["errors"] for c in measured
    ]
    capfd.readouterr()


def test_places_beyond_the_noise_are_measured_again_with_other_seeds(tmp_path, monkeypatch, capfd):
    arguments = ["--size", "200", "--budgets", "20", "40", "--only", "ntkest", "exponential"]
    files = {"json": tmp_path / "found.json", "markdown": tmp_path / "found.md", "work": tmp_path / "work"}
    arguments += [word for name, file in files.items() for word in (f"--{name}", str(file))]
    estimators.main([*arguments, "--seeds", "2", "--jobs", "1", "--no-stress"])
    place = estimators_page._places(json.loads(files["json"].read_text()))
    places = [p for p in place if (p.budget, p.quantity) == (40, "trace")]
    monkeypatch.setattr(estimators_page, "beyond_the_noise", lambda raw: places)
    estimators.main([*arguments, "--again", "3"])
    found = json.loads(files["json"].read_text())
    errors = {cell["method"]: cell["errors"] for cell in found["again"]}
    assert {(c["budget"], c["quantity"]) for c in found["again"]} == {(40, "trace")}
    J = ntkest.from_jacobian(operator("exponential", 200, tmp_path).jacobian)
    truth = operator("exponential", 200, tmp_path).truth["trace"]
    wanted = [float(ntkest.trace(J, method="reverse", passes=40, seed=seed)) / truth - 1 for seed in (2, 3, 4)]
    assert errors["reverse"] == pytest.approx(wanted, rel=5e-3)  # three digits are kept
    assert files["markdown"].read_text() == estimators_page.markdown(found)
    assert "with 3 seeds" in files["markdown"].read_text()
    capfd.readouterr()


def test_a_contest_is_judged_by_the_best_of_each_side():
    def side(*rows):
        return estimators_page.Side([f"method {n}" for n in range(len(rows))], np.asarray(rows))

    ours = side([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    place = estimators_page.Place("flat", 20, "trace", False, ours, side([0.4, 0.4, 0.4], [np.inf, np.inf, 0.4]))
    assert place.ratio == pytest.approx((0.25, 0.25, 0.25))


def test_a_scaled_operator_has_the_scaled_kernel():
    subject = Operator("small", np.eye(3)).scaled(1e-20)
    assert subject.truth["trace"] == pytest.approx(3e-20)
