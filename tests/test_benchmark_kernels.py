"""The benchmark of kernels: floors, truth, trials and judgements hold, and a small race runs from end to end."""

import argparse
import importlib
import json
import math
from typing import ClassVar

import numpy as np
import pytest

from benchmarks import kernels, kernels_page, width_page
from benchmarks.kernels_contestants import Entry, GoneError
from benchmarks.kernels_networks import NETWORKS, Network, floor, read
from benchmarks.kernels_truth import FEW, rows, truth

TINY = Network("tiny", "MLP 6-5-3", 8, (6, 5, 3))
SMALL = Network("small", "ConvNet", 5, (6, 3), (2, 4, 5, 6), 8)


# Floors and truth -----------------------------------------------------------------------------------------------------


def test_floors_of_the_mlp_are_its_products_counted_one_by_one():
    N, a, h, c = 256, 784, 1024, 10
    forward = 2 * N * (a * h + h * h + h * c)
    pntk = forward + 2 * N * h * h + N**2 * (a + h + h) + N**2 * 2 * (h + 1)
    full = forward + 2 * c * N * h * h + N**2 * (a + h + h) + (c * N) ** 2 * 2 * (h + 1)
    assert floor(NETWORKS["mlp"], "pntk") == pntk == pytest.approx(1.81e9, rel=0.01)
    assert floor(NETWORKS["mlp"], "full") == full == pytest.approx(20e9, rel=0.01)


def test_floors_of_the_convnet_are_its_products_counted_one_by_one():
    N, c = 64, 10
    convolutions = [(27, 32, 1024), (288, 64, 256), (576, 128, 64)]
    each = [2 * N * p * q * s for p, q, s in convolutions]
    head, sizes = 2 * N * 128 * c, sum(p * q for p, q, _ in convolutions)
    pntk = sum(each) + head + each[1] + each[2] + sum(each) + N**2 * sizes + N**2 * 128
    full = sum(each) + head + c * (each[1] + each[2] + sum(each)) + (c * N) ** 2 * sizes + N**2 * 128
    assert floor(NETWORKS["convnet"], "pntk") == pntk == pytest.approx(4.2e9, rel=0.01)
    assert floor(NETWORKS["convnet"], "full") == full == pytest.approx(65e9, rel=0.01)


def test_the_floor_takes_the_cheaper_way_for_each_layer():
    """At two examples a convolution at many positions is cheaper by rows, and a wide dense layer in factors."""
    wide = Network("", "", 2, (300, 200, 100))
    n, inner = 2, 4 * (300 + 201) + 4 * 200
    assert floor(wide, "pntk") == 2 * n * (300 * 200 + 200 * 100) + inner
    assert floor(wide, "pntk", 1) < floor(wide, "pntk", 2)


@pytest.mark.parametrize("network", [TINY, SMALL], ids=lambda network: network.name)
@pytest.mark.parametrize(("framework", "module"), [("torch", "torch_func"), ("jax", "jax_func")])
def test_peers_ours_and_the_truth_agree(tmp_path, network, framework, module):
    pytest.importorskip(framework)
    given = written(tmp_path, network)
    peers = importlib.import_module(f"benchmarks.peers_{module}").contestants()
    ours = importlib.import_module("benchmarks.peers_ntkest_kernels").contestants()[framework]
    for kind in ("pntk", "full"):
        expected = truth(given, kind)
        outputs = network.outputs if kind == "full" else 1
        assert expected.shape == (FEW * outputs,) * 2
        for make in (ours, *peers.values()):
            found = np.asarray(make(given, kind)(), dtype=np.float64)
            assert found.shape == (network.examples * outputs,) * 2
            assert kernels.error(found, expected, outputs) < 1e-5
    rest = truth(given, "trace")
    assert float(ours(given, "trace")()) == pytest.approx(float(rest), rel=1e-5)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_reverse_passes_make_gradients_of_all_outputs(tmp_path, framework):
    pytest.importorskip(framework)
    given = written(tmp_path, TINY)
    for make in importlib.import_module(f"benchmarks.peers_passes_{framework}").contestants().values():
        leaves = []
        flatten(make(given, "trace")(), leaves)
        assert sum(leaf.size for leaf in leaves) == 3 * (6 * 5 + 5 + 5 * 3 + 3)


def flatten(tree, leaves):
    if isinstance(tree, tuple | list):
        for item in tree:
            flatten(item, leaves)
    else:
        leaves.append(np.asarray(tree))


def written(folder, network):
    np.savez(folder / "network.npz", **network.draw())
    return read(folder / "network.npz", network.examples)


# Trials and judgements ------------------------------------------------------------------------------------------------


class Fake:
    """A contestant whose calls take time and memory by formulas, and whose kernel is given."""

    def __init__(self, seconds=lambda n: 0.0, memory=lambda n: 0.0, kernel=None):
        self.seconds, self.memory, self.kernel, self.asked = seconds, memory, kernel, []
        self.closed = False

    def ask(self, what, *words):
        self.asked.append((what, *words))
        if what == "prepare":
            return {"first": 1.0, "seconds": self.seconds(words[0]), "bytes": self.memory(words[0])}
        if what == "save":
            n = len(self.kernel) * words[0] // TINY.examples
            np.save(words[1], self.kernel[:n, :n])
            return {}
        return {"seconds": self.seconds(words[0]), "gemm": 0.01}

    def close(self):
        self.closed = True


def test_trials_go_straight_to_all_examples_where_that_is_sure_to_fit():
    fake = Fake(lambda n: 1e-6 * n**2)
    assert [n for n, _ in kernels.trials(fake, 4, 256, 60, 8e9)] == [4, 32, 256]


def test_trials_stop_before_time_runs_out():
    fake = Fake(lambda n: 0.01 * n**2)
    *measured, (wanted, last) = kernels.trials(fake, 4, 256, 60, 8e9)
    assert [n for n, _ in measured] == [4, 32, 64]
    assert wanted == 128
    assert "at most 60 s" in last["beyond"]


def test_trials_go_on_as_memory_has_grown():
    """Linear growth is found out; nothing is ever asked for that would exceed what is allowed."""
    fake = Fake(memory=lambda n: 2e7 * n)
    asked = [n for n, _ in kernels.trials(fake, 4, 256, 60, 8e9)]
    assert asked == [4, 32, 64, 128, 256] or asked == [4, 32, 256]
    fake = Fake(memory=lambda n: 1e8 * n)
    *measured, (_, last) = kernels.trials(fake, 4, 256, 60, 8e9)
    assert max(n for n, _ in measured) == 64
    assert "beyond" in last


def test_who_is_wrong_is_named_and_not_timed(tmp_path):
    race = kernels.Race(TINY, "pntk", options(), tmp_path)
    right = whole_kernel(race)
    wrong = right.copy()
    wrong[0, 0] *= 1.01
    cells, alive = {}, {}
    for name, kernel in (("torch", right), ("a peer", right), ("another", wrong)):
        entry = Entry("torch", "peers_ntkest_kernels" if name == "torch" else "peers_other", name)
        cells[entry] = {"framework": "torch", "title": entry.title, "ours": entry.ours, "examples": TINY.examples}
        cells[entry] |= {"trial": {"seconds": 0.1, "bytes": 1e6, "first": 1.0}, "floor": 1}
        alive[entry] = Fake(lambda n: 0.1, kernel=kernel)
    race.judge(cells, alive)
    race.turns(cells, alive)
    ours, good, bad = cells.values()
    assert len(ours["samples"]["8"]) == len(good["samples"]["8"]) == 3
    assert bad["wrong"]
    assert "samples" not in bad
    assert good["from ours"] == 0
    found = {"title": "t", "examples": 8, "kind": "pntk", "floor": 1, "contestants": list(cells.values())}
    assert "another: wrong, by" in "\n".join(kernels_page._notes(found))


def test_a_contestant_whose_process_ends_is_out_with_the_reason():
    entry = Entry("torch", "peers_other", "a peer")
    cell, fake = {}, Fake()
    alive = {entry: fake}

    def end():
        raise GoneError("its process ended with status 9")

    kernels.guarded(cell, alive, entry, end)
    assert cell == {"skipped": "its process ended with status 9"}
    assert fake.closed
    assert not alive


def test_who_goes_too_far_goes_on_with_fewer_examples(tmp_path, monkeypatch):
    class Ending(Fake):
        def ask(self, what, *words):
            if words[0] > 2:
                raise GoneError("its process ended with status 9")
            return super().ask(what, *words)

        versions: ClassVar = {"peer": "1"}
        process = argparse.Namespace(poll=lambda: 9)

    started = []
    race = kernels.Race(TINY, "pntk", options(), tmp_path)
    monkeypatch.setattr(race, "process", lambda entry, python: started.append(Ending(lambda n: 1.0)) or started[-1])
    entry, cell, alive = Entry("torch", "peers_other", "a peer"), {}, {}
    race.start(entry, cell, alive)
    assert cell["examples"] == 2
    assert cell["stopped"] == {"examples": 8, "reason": "its process ended with status 9"}
    assert started[0].closed
    assert alive == {entry: started[1]}


def test_errors_are_relative_to_the_largest_entry_and_infinite_for_another_shape():
    expected = np.array([[4.0, 1.0], [1.0, 2.0]])
    assert kernels.error(expected + np.array([[0, 0.4], [0, 0]]), expected, 1) == 0.1
    assert kernels.error(np.eye(3), expected, 1) == math.inf
    assert not kernels.error(np.array(math.nan), np.array(1.0), 0) <= kernels.ACCURATE


def options(**changes):
    given = {"framework": None, "peer": None, "rounds": 3, "threads": 1, "seconds": 60.0, "gigabytes": 8.0}
    return argparse.Namespace(**given, peers_python=None, nt_python=None, **changes)


def whole_kernel(race):
    """pNTK of all examples."""
    given = read(race.file, TINY.examples)
    sums = np.stack([sum(rows(given, x)) for x in given.x])
    return sums @ sums.T / TINY.outputs


# From end to end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_small_race_runs_and_its_page_shows_it(tmp_path, monkeypatch, framework):
    pytest.importorskip(framework)
    tiny = Network("mlp", TINY.title, TINY.examples, TINY.widths)
    monkeypatch.setattr(kernels, "NETWORKS", {"mlp": tiny})
    words = ["--network", "mlp", "--kind", "full", "--framework", framework, "--rounds", "2", "--threads", "1"]
    words += ["--peer", "func, Jac", "--peer", "jax, Jac", "--peer", "nngeometry", "--peer", "auto"]
    kernels.main([*words, "--folder", str(tmp_path)])
    (race,) = json.loads((tmp_path / "kernels.json").read_text())["races"]
    cells = {cell["title"]: cell for cell in race["contestants"]}
    name = "torch.func, Jacobian contraction" if framework == "torch" else "jax, Jacobian contraction"
    absent = "nngeometry" if framework == "torch" else "neural-tangents, auto"
    for title in (f"ntkest, {framework}", name):
        assert cells[title]["error"] < 1e-5
        assert len(cells[title]["samples"]["8"]) == 2
        assert cells[title]["trial"]["bytes"] >= 0
    assert "no environment" in cells[absent]["skipped"]
    page = (tmp_path / "kernels.md").read_text()
    assert f"**ntkest, {framework}**" in page
    assert f"- {absent}: not measured; no environment for it was named" in page

    alone = [
        "--kind",
        "pntk",
        "--framework",
        framework,
        "--rounds",
        "1",
        "--threads",
        "1",
        "--peer",
        "nobody",
        "--keep",
    ]
    kernels.main([*alone, "--folder", str(tmp_path)])
    before, after = race, json.loads((tmp_path / "kernels.json").read_text())["races"]
    assert [race["kind"] for race in after] == ["pntk", "full"]
    assert after[1] == before
    assert "--keep" in after[0]["command"]
    assert "--rounds 1" in (tmp_path / "kernels.md").read_text()
    assert "--rounds 2" in (tmp_path / "kernels.md").read_text()


def test_the_page_marks_what_misses_a_goal():
    def cell(title, seconds, **more):
        trial = {"seconds": seconds, "bytes": 2e6, "first": 1.0}
        samples = {"256": [[seconds, 0.01]] * 2}
        own = {
            "framework": "torch",
            "title": title,
            "ours": False,
            "examples": 256,
            "floor": floor(NETWORKS["mlp"], "pntk"),
        }
        return {**own, "trial": trial, "samples": samples, "error": 1e-7, "versions": {"torch": "2"}, **more}

    contestants = [
        cell("ntkest, torch", 0.02, ours=True, samples={"256": [[0.02, 0.01]] * 2, "32": [[0.01, 0.01]] * 2}),
        cell("nngeometry", 0.03),
        cell("nngeometry, who gave up", 0.011, examples=32, samples={"32": [[0.011, 0.01]]}),
        cell("torch.func, Jacobian contraction", 4.0, examples=32, samples={"32": [[4.0, 0.01]]}),
    ]
    contestants[2]["stopped"] = {"examples": 64, "reason": "at most 60 s"}
    race = {
        "network": "mlp",
        "title": "MLP",
        "examples": 256,
        "kind": "pntk",
        "floor": 1.8e9,
        "contestants": contestants,
    }
    page = kernels_page.markdown(
        {
            "command": "c",
            "machine": {"processor": "p", "cores": 2, "load": [0.0]},
            "threads": 2,
            "limits": {"seconds": 60, "bytes": 8e9},
            "gemm_flops": 2 * 1024**3,
            "races": [race],
        }
    )
    assert "| mlp, pNTK | torch | nngeometry over ours | at least 1.7 | 1.50 ✗ |" in page
    assert "| mlp, pNTK | torch | ours over the floor | at most 1.7 | 2.37 ✗ |" in page
    assert "| torch.func, Jacobian contraction | 32 (!) | 4 s (4 s … 4 s) | 400 |" in page
    assert "not with 64 examples; at most 60 s" in page


# Width and depth ------------------------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_a_kernel_that_is_k_for_each_output_alone_is_off_by_nothing():
    from benchmarks.width import compared

    draw = np.random.default_rng(0)
    A, B = draw.standard_normal((6, 9)), draw.standard_normal((2, 9))
    k, across = A @ A.T, B @ A.T
    found = compared(np.kron(k, np.eye(3)), np.kron(across, np.eye(3)), k, across, draw.standard_normal((6, 3)))
    assert found["largest"] == found["condition"] == pytest.approx(1)
    assert max(found["error"], found["prediction"]) < 1e-9
    half = compared(np.kron(k, np.eye(3)), np.kron(across, np.eye(3)), k / 2, across / 2, draw.standard_normal((6, 3)))
    assert half["error"] == half["largest"] == 0.5


@pytest.mark.needs("torch")
def test_widths_are_measured_against_the_full_kernel():
    from benchmarks.width import measured

    narrow, wide = measured(16, 0), measured(256, 0)
    for name in ("pntk", "trace"):
        assert wide[name]["error"] < narrow[name]["error"] < 2
        assert wide[name]["layers"][2] < 1e-6


def test_the_page_of_widths_fits_slopes_and_marks_what_has_moved(tmp_path):
    def cell(width):
        own = {
            "error": 5 * width**-0.5,
            "largest": 1 + width**-0.5,
            "condition": 1 - width**-0.5,
            "prediction": 1 / width,
        }
        own["layers"] = [width**-0.5] * 3
        return {"width": width, "seed": 0, "pntk": own, "trace": own}

    found = {"command": "c", "versions": {"torch": "2"}, "seeds": 1, "cells": [cell(n) for n in (64, 256, 1024)]}
    assert width_page.slope(width_page.average(found, "pntk", "largest")) == pytest.approx(-0.5)
    assert width_page.slope(width_page.average(found, "trace", "prediction")) == pytest.approx(-1)
    page = width_page.markdown(found)
    assert "| relative Frobenius error | 0.625 | 0.312 | 0.156 | -0.50 |" in page
    assert "| … by an earlier program | 0.610 | 0.220 ✗ | 0.083 |  |" in page
    pytest.importorskip("matplotlib")
    width_page.draw(found, tmp_path / "width.svg")
    assert (tmp_path / "width.svg").read_text().startswith("<?xml")


@pytest.mark.needs("torch")
def test_both_kernels_of_a_residual_network_are_timed_in_turns(tmp_path):
    from benchmarks import depth, depth_page

    given = argparse.Namespace(examples=2, pixels=8, rounds=2)
    cell = depth.measured(8, given)
    assert len(cell["samples"]["full"]) == len(cell["samples"]["pntk"]) == 2
    assert 0 < cell["error"] < 2
    found = {
        "command": "c",
        "machine": {"processor": "p", "cores": 2, "load": [0.0]},
        "versions": {"torch": "2"},
        "threads": 1,
        "examples": 2,
        "pixels": 8,
        "rounds": 2,
        "cells": [{"depth": 8, "parameters": 78000, "error": 0.5, "samples": {"full": [4.0, 6.0], "pntk": [2.0, 2.0]}}],
    }
    assert "| 8 | 78 k | 5 s (4.5 s … 5.5 s) | 2 s (2 s … 2 s) | 2.5 | 0.50 |" in depth_page.markdown(found)
    pytest.importorskip("matplotlib")
    depth_page.draw(found, tmp_path / "depth.svg")
    assert (tmp_path / "depth.svg").read_text().startswith("<?xml")
