"""The benchmark of linear algebra, on a torch model."""

from benchmarks import overhead_worker
from ntkest.estimators.problem import Counted


def test_time_inside_passes_is_a_part_of_the_run(monkeypatch):
    for name in ("map_jvp", "map_vjp"):  # the stopwatch replaces them
        monkeypatch.setattr(Counted, name, getattr(Counted, name))
    monkeypatch.setattr(overhead_worker, "METHODS", ("reverse", "xnystrace"))
    monkeypatch.setattr(overhead_worker, "BUDGETS", (8,))
    cells = overhead_worker.measured(overhead_worker.Stopwatch("torch"), "torch", "mlp", 2)
    assert [(cell["quantity"], cell["method"], cell["passes"]) for cell in cells] == [
        ("trace", "reverse", 8),
        ("trace", "xnystrace", 8),
        ("effective_rank", "reverse", 8),
        ("effective_rank", "xnystrace", 8),
    ]
    for cell in cells:
        assert len(cell["seconds"]) == len(cell["inside"]) == 2
        assert all(0 < i < s for i, s in zip(cell["inside"], cell["seconds"], strict=True))
