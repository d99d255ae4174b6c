"""The benchmark of projections: its gradients, its measure of errors, and its page."""

import numpy as np
import pytest

from benchmarks import projection, projection_page


def test_gradients_and_their_products_belong_together(tmp_path):
    products = projection.draw(tmp_path / "g.npy", 70, 300)
    gradients = np.load(tmp_path / "g.npy").astype(np.float64)
    assert gradients.shape == (70, 300)
    np.testing.assert_allclose(products, gradients @ gradients.T, rtol=1e-4, atol=1e-2)


def test_errors_are_relative_to_the_norms_and_as_expected(tmp_path):
    products = projection.draw(tmp_path / "g.npy", 30, 400)
    gradients = np.load(tmp_path / "g.npy").astype(np.float64)
    assert projection.inner_error(gradients, products) < 1e-6
    assert projection.inner_error(2 * gradients, products) == pytest.approx(
        3 * (projection.expected_error(products, 1) ** 2 - 1) ** 0.5, rel=1e-5
    )
    draw = np.random.default_rng(0)
    found = [projection.inner_error(gradients @ draw.standard_normal((400, 50)) / 50**0.5, products) for _ in range(60)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(projection.expected_error(products, 50), rel=0.15)


def cell(library, seconds, **more):
    return {"library": library, "projector": "p", "versions": {library: "1"}, "samples": seconds, **more}


def test_the_page_says_who_is_slower_and_who_could_not():
    cells = [
        cell("ntkest", [[2.0, 0.1], [4.0, 0.2]], bytes=1e7, error=0.01),
        cell("traker", [[6.0, 0.1], [10.0, 0.2]], bytes=4e8, error=0.02),
        cell("dattri", [], skipped="KeyError: sjlt"),
    ]
    found = {
        "command": "python -m benchmarks projection",
        "machine": {"processor": "cpu", "cores": 2, "load": [0.1]},
        "threads": 2,
        "shape": [8, 100, 10],
        "floor": 1000,
        "gemm_flops": 100,
        "expected": 0.015,
        "kinds": {"sjlt": cells},
    }
    assert projection_page.to_ours(cells[1], cells) == pytest.approx(2.75)
    text = projection_page.markdown(found)
    assert "| traker, p | 8 s (7 s … 9 s) | 2.75 | 5.50 | 400 MB | 0.0200 |" in text
    assert "dattri, p: not measured; KeyError: sjlt." in text
    assert "| dattri" not in text
