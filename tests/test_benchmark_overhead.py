"""The benchmark of linear algebra: its transcriptions estimate the trace, and its page marks what misses a goal."""

import numpy as np
import pytest

from benchmarks import overhead, overhead_page
from benchmarks.transcriptions import TRANSCRIPTIONS
from tests import oracle


@pytest.mark.parametrize("method", sorted(TRANSCRIPTIONS))
def test_a_transcription_is_the_algorithm(method):
    """Unbiased, and with the spread of ours: a slip in it would make it a rival that does less work."""
    import ntkest

    A = oracle.with_spectrum(oracle.spectra(120)["power-1"], 120)
    plain, each = TRANSCRIPTIONS[method]
    theirs = np.array([plain(A, 12, seed)[0] for seed in range(300)])
    J = ntkest.from_jacobian(A)
    ours = np.array([float(ntkest.trace(J, method=method, passes=12 * each, seed=seed)) for seed in range(300)])
    assert abs(theirs.mean() - np.trace(A @ A.T)) < 4 * theirs.std() / 300**0.5
    assert theirs.std() == pytest.approx(ours.std(), rel=0.25)


def test_times_are_taken_in_turns_and_ratios_from_pairs(monkeypatch):
    monkeypatch.setattr(overhead, "EXPLICIT", (40,))
    cells = list(overhead.explicit(100, 3))
    assert [(cell["method"], cell["passes"]) for cell in cells] == [("xnystrace", 40), ("xtrace", 40)]
    for cell in cells:
        assert len(cell["seconds"]) == len(cell["plain"]) == 3
        pairs = sorted(a / b for a, b in zip(cell["seconds"], cell["plain"], strict=True))
        assert cell["ratio"] == pytest.approx(pairs[1], rel=0.02)
        assert np.abs(cell["errors"]).max() < 0.5


def test_the_page_marks_what_misses_a_goal():
    cell = {"framework": "torch", "case": "mlp", "quantity": "trace", "budget": 32, "passes": 32}
    cells = [
        {**cell, "method": "reverse", "seconds": [1.0, 1.0], "inside": [0.8, 0.8], "drawing": [0.1, 0.1], "whole": []},
        {
            **cell,
            "method": "xtrace",
            "whole": [3.0, 4.0],
            "seconds": [1.0, 2.0],
            "inside": [0.5, 1.0],
            "drawing": [0.0, 0.0],
        },
    ]
    explicit = [
        {"method": "xtrace", "passes": 40, "seconds": [0.013], "plain": [0.01], "ratio": 1.3},
        {"method": "xtrace", "passes": 120, "seconds": [0.02], "plain": [0.01], "ratio": 2.0},
    ]
    page = overhead_page.markdown(
        {
            "command": "c",
            "machine": {"processor": "p", "cores": 2},
            "frameworks": {"torch": {"versions": {"torch": "2"}}},
            "versions": {"numpy": "2"},
            "runs": 2,
            "cases": ["mlp"],
            "budgets": [32],
            "size": 100,
            "spectrum": "power-1",
            "cells": cells,
            "explicit": explicit,
        }
    )
    assert "| `reverse` | 10 % + 10 % (1000) |" in page
    assert "| `xtrace` | 50 % + 0 % (1500/3500) ✗ |" in page
    assert "That takes 2.5 to 2.5 times as long" in page
    assert "in 1 of 2 cells" in page
    assert "| `xtrace` | 40 | 13.0 | 10.0 | 1.30 |" in page
    assert "| `xtrace` | 120 | 20.0 | 10.0 | 2.00 ✗ |" in page
