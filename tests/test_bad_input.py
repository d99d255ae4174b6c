"""Bad input: each case ends in its own clear error, a subclass of NTKError and of the built-in that fits."""

import array_api_strict as strict
import numpy as np
import pytest

import ntkest

N, OUTPUTS, P = 4, 3, 10
DRAW = np.random.default_rng(0)
A = DRAW.standard_normal((N * OUTPUTS, P))
Y = DRAW.standard_normal((N, OUTPUTS))


def dense(A=A, shape=(N, OUTPUTS)):
    return ntkest.from_jacobian(A, shape)


def without(mode):
    """A linearization that lacks a mode."""
    J = dense()
    J.modes = frozenset({"jvp", "vjp"}) - {mode}
    return J


def spoiled(value, where=(0, 0)):
    B = A.copy()
    B[where] = value
    return B


def huge():
    return ntkest.from_jacobian(np.full((4, 4), 1e30, dtype=np.float32))


V, T = ValueError, TypeError
CASES = {
    # linearize and from_jacobian
    "linearize an array": (T, "from_jacobian", lambda: ntkest.linearize(A)),
    "linearize without a framework": (ImportError, "no adapter for", lambda: ntkest.linearize(len, [])),
    "unknown backend": (
        ImportError,
        "backend='tinygrad' is not installed",
        lambda: ntkest.linearize(len, backend="tinygrad"),
    ),
    "batch_axis of text": (V, "batch_axis=", lambda: ntkest.linearize(len, [], batch_axis="first")),
    "batch_axis true": (V, "batch_axis=", lambda: ntkest.linearize(len, [], batch_axis=True)),
    "a Jacobian of text": (T, "not str", lambda: ntkest.from_jacobian("A")),
    "a Jacobian of lists": (T, "not list", lambda: ntkest.from_jacobian([[1.0]])),
    "a Jacobian with one axis": (V, r"shape \(M, P\)", lambda: ntkest.from_jacobian(np.ones(3))),
    "an empty Jacobian": (V, r"shape \(M, P\)", lambda: ntkest.from_jacobian(np.ones((0, 3)))),
    "no blocks": (V, "empty mapping", lambda: ntkest.from_jacobian({})),
    "blocks of different heights": (V, "number of rows", lambda: dense({"a": A, "b": A[:5]})),
    "blocks of two namespaces": (T, "namespace", lambda: dense({"a": A, "b": strict.asarray(A)})),
    "an integer Jacobian": (T, "int64", lambda: dense(np.ones((12, 2), dtype=np.int64))),
    "a complex Jacobian": (T, "complex128", lambda: dense(A + 0j)),
    "NaN in a Jacobian": (V, "NaN or infinity", lambda: dense(spoiled(np.nan))),
    "infinity in a Jacobian": (V, "NaN or infinity", lambda: dense(spoiled(np.inf))),
    "output_shape of another size": (V, "output_shape=", lambda: dense(shape=(N, OUTPUTS + 1))),
    # keywords
    "not a linearization": (T, "linearization is needed", lambda: ntkest.trace(A)),
    "unknown method": (V, "one of auto, exact", lambda: ntkest.trace(dense(), method="hutch+++")),
    "rtol zero": (V, "rtol=", lambda: ntkest.trace(dense(), rtol=0)),
    "rtol negative": (V, "rtol=", lambda: ntkest.trace(dense(), rtol=-0.1)),
    "rtol NaN": (V, "rtol=", lambda: ntkest.trace(dense(), rtol=float("nan"))),
    "rtol of text": (T, "rtol=", lambda: ntkest.trace(dense(), rtol="5%")),
    "max_passes zero": (V, "max_passes=", lambda: ntkest.trace(dense(), max_passes=0)),
    "max_passes too few": (V, "max_passes=3 is too few", lambda: ntkest.trace(dense(), method="reverse", max_passes=3)),
    "passes of a float": (T, "passes=", lambda: ntkest.trace(dense(), passes=10.0)),
    "passes negative": (V, "passes=", lambda: ntkest.trace(dense(), passes=-1)),
    "passes true": (T, "passes=", lambda: ntkest.trace(dense(), passes=True)),
    "passes too few": (V, "passes=3 is too few", lambda: ntkest.trace(dense(), method="reverse", passes=3)),
    "passes too few for Hutch++": (
        V,
        "too few for method='hutch",
        lambda: ntkest.trace(dense(), method="hutch++", passes=9),
    ),
    "seed of text": (T, "seed=", lambda: ntkest.trace(dense(), seed="now")),
    "seed negative": (V, "seed=", lambda: ntkest.trace(dense(), seed=-1)),
    "seed too large": (V, "seed=", lambda: ntkest.trace(dense(), seed=2**64)),
    "unknown by": (V, "by=", lambda: ntkest.trace(dense(), by="neuron")),
    "unknown centring": (V, "centered=", lambda: ntkest.trace(dense(), centered="rows")),
    "centring over unknown examples": (V, "batch_axis=", lambda: ntkest.trace(dense(shape=None), centered="examples")),
    "memory of text": (V, "memory=", lambda: ntkest.trace(dense(), memory="lots")),
    "memory zero": (V, "memory=", lambda: ntkest.trace(dense(), memory=0)),
    "chunk zero": (V, "chunk=", lambda: ntkest.trace(dense(), passes=9, chunk=0)),
    "chunk of a float": (T, "chunk=", lambda: ntkest.trace(dense(), passes=9, chunk=2.5)),
    "progress of text": (T, "progress=", lambda: ntkest.trace(dense(), method="reverse", progress="yes")),
    "an unknown keyword": (T, "tolerance", lambda: ntkest.trace(dense(), tolerance=0.1)),
    # modes
    "reverse without VJP": (RuntimeError, "no vjp", lambda: ntkest.trace(without("vjp"), method="reverse", passes=9)),
    "forward without JVP": (RuntimeError, "no jvp", lambda: ntkest.trace(without("jvp"), method="forward", passes=9)),
    "Hutch++ without JVP": (RuntimeError, "no jvp", lambda: ntkest.trace(without("jvp"), method="hutch++", passes=40)),
    "no common mode": (RuntimeError, "mode", lambda: ntkest.alignment(without("jvp"), without("vjp"))),
    "exact without a common mode": (
        RuntimeError,
        "mode",
        lambda: ntkest.alignment(without("jvp"), without("vjp"), method="exact"),
    ),
    # targets and second kernels
    "targets of another shape": (V, r"shape \(4, 2\)", lambda: ntkest.alignment(dense(), Y[:, :2])),
    "targets of text": (T, "targets", lambda: ntkest.alignment(dense(), "labels")),
    "a list of text": (T, "numbers", lambda: ntkest.alignment(dense(), ["a", "b", "c", "d"])),
    "targets of another namespace": (V, "framework", lambda: ntkest.alignment(dense(), strict.asarray(Y))),
    "complex targets": (T, "complex", lambda: ntkest.alignment(dense(), Y + 0j)),
    "NaN in targets": (V, "NaN", lambda: ntkest.alignment(dense(), np.where(Y > 1, np.nan, Y) * np.nan)),
    "targets of zeros": (V, "all zero", lambda: ntkest.alignment(dense(), 0 * Y)),
    "constant targets, centred": (V, "constant", lambda: ntkest.alignment(dense(), 0 * Y + 1, centered=True)),
    "labels of another length": (
        V,
        r"labels of shape \(4,\)|must have \(4,\)",
        lambda: ntkest.alignment(dense(), np.arange(3)),
    ),
    "labels too large": (V, "3 outputs a row", lambda: ntkest.alignment(dense(), np.arange(4))),
    "labels negative": (V, "run from -1", lambda: ntkest.alignment(dense(), np.arange(4) - 1)),
    "kernels on other outputs": (V, "different outputs", lambda: ntkest.alignment(dense(), dense(A[:6], (2, 3)))),
    "kernels of two namespaces": (
        V,
        "different frameworks",
        lambda: ntkest.alignment(dense(), dense(strict.asarray(A))),
    ),
    "layers that do not match": (
        V,
        "same parameter names",
        lambda: ntkest.alignment(dense({"a": A}), dense({"b": A}), by="layer"),
    ),
    "a zero kernel's rank": (V, "kernel is zero", lambda: ntkest.effective_rank(dense(0 * A))),
    "a zero kernel's alignment": (V, "kernel is zero", lambda: ntkest.alignment(dense(0 * A), Y)),
    "a trace beyond float32": (V, "float64", lambda: ntkest.trace(huge(), method="exact")),
    # probes
    "probes of an array": (T, "draw_probes", lambda: ntkest.trace(dense(), probes=A)),
    "probes and passes": (
        V,
        "not both",
        lambda: ntkest.trace(dense(), passes=9, probes=ntkest.draw_probes(dense(), 9)),
    ),
    "probes of another model": (
        V,
        "another model",
        lambda: ntkest.trace(dense(), method="reverse", probes=ntkest.draw_probes(dense(np.ones((80, 9)), None), 9)),
    ),
    "probes of another method": (
        V,
        "has no tangents",
        lambda: ntkest.trace(dense(), method="forward", probes=ntkest.draw_probes(dense(), 9)),
    ),
    "too few probes": (V, "holds 2", lambda: ntkest.trace(dense(), probes=ntkest.draw_probes(dense(), 2))),
    "no probes": (V, "count", lambda: ntkest.draw_probes(dense(), 0)),
    "probes for auto": (V, "method=", lambda: ntkest.draw_probes(dense(), 9, method="auto")),
    "half a probe": (T, "count", lambda: ntkest.draw_probes(dense(), 1.5)),
    # batches
    "batches that can be read once": (T, "once|re-iter|again", lambda: ntkest.linearize_batches(len, [], iter([A]))),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_has_its_own_clear_error(case):
    kind, message, call = CASES[case]
    expected = kind if case == "an unknown keyword" else (ntkest.NTKError)
    with pytest.raises(expected, match=message) as raised:
        call()
    assert isinstance(raised.value, kind)
    text = str(raised.value)
    assert 20 < len(text) < 400
    assert "\n" not in text


def test_the_table_is_long_and_its_errors_differ():
    texts = []
    for case, (_, _, call) in CASES.items():
        with pytest.raises((ntkest.NTKError, TypeError)) as raised:
            call()
        texts.append((str(raised.value), case))
    assert len(CASES) >= 60
    assert len({text for text, _ in texts}) >= len(CASES) - 8
