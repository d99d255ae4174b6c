"""A stream of batches is the linearization of their concatenation."""

import tracemalloc
from itertools import count

import autograd.numpy as anp
import numpy as np
import pytest

import ntkest
from ntkest.linearization import (
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    NotRepeatableError,
    ShapeError,
    StaleLinearizationError,
)
from ntkest.testing import check_backend

rng = np.random.default_rng(0)
PARAMS = {"w": rng.standard_normal((3, 4)), "v": rng.standard_normal((4, 2)), "unused": rng.standard_normal(2)}
X = rng.standard_normal((7, 3))
BATCHES = [X[:3], X[3:5], X[5:]]


def net(p, x):
    return anp.dot(anp.tanh(anp.dot(x, p["w"])), p["v"])


def time_first(p, x):  # (T, N, D) to states (T, N, H)
    state, states = anp.zeros((x.shape[1], 4)), []
    for x_t in x:
        state = anp.tanh(0.5 * state + anp.dot(x_t, p["w"]))
        states.append(state)
    return anp.stack(states)


def jacobian(J):
    return np.concatenate(J.vjp(np.eye(J.outputs.size)), axis=1)


def assert_equal_linearizations(J, whole):
    A = jacobian(whole)
    np.testing.assert_allclose(J.outputs, whole.outputs, rtol=1e-14)
    assert (J.examples, J.param_names, J.modes, J.passes_per_jvp) == (
        whole.examples,
        whole.param_names,
        whole.modes,
        whole.passes_per_jvp,
    )
    np.testing.assert_allclose(jacobian(J), A, atol=1e-14)
    v = tuple(rng.standard_normal((5, p.size)) for p in J.params)
    np.testing.assert_allclose(J.jvp(v), np.concatenate(v, axis=1) @ A.T, atol=1e-13)


@pytest.mark.parametrize("keep", [False, True])
def test_batches_equal_the_concatenated_batch(keep):
    J = ntkest.linearize_batches(net, PARAMS, BATCHES, keep=keep)
    assert_equal_linearizations(J, ntkest.linearize(net, PARAMS, X))


@pytest.mark.parametrize("keep", [False, True])
def test_batches_equal_the_concatenated_batch_along_axis_one(keep):
    x = rng.standard_normal((6, 5, 3))
    J = ntkest.linearize_batches(time_first, PARAMS, [x[:, :2], x[:, 2:3], x[:, 3:]], keep=keep)
    assert J.examples == (1, 5)
    assert_equal_linearizations(J, ntkest.linearize(time_first, PARAMS, x))


def test_batches_equal_an_explicit_jacobian_through_map_with_any_chunk():
    J = ntkest.linearize_batches(net, PARAMS, BATCHES)
    whole = ntkest.linearize(net, PARAMS, X)
    ends = np.cumsum([p.size for p in whole.params])[:-1]
    blocks = np.split(jacobian(whole), ends, axis=1)
    D = ntkest.from_jacobian(dict(zip(whole.param_names, blocks, strict=True)), whole.outputs.shape)
    omega = rng.standard_normal((5, 14))
    for chunk in (1, 2, 3, 5, None):
        found = J.map_vjp(lambda bs: tuple((b**2).sum(axis=1) for b in bs), omega, chunk=chunk)
        wanted = D.map_vjp(lambda bs: tuple((b**2).sum(axis=1) for b in bs), omega)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("keep", [False, True])
def test_a_stream_conforms(keep):
    def make(case):
        if case.axis is None:
            return ntkest.linearize(lambda p, x: case.function(anp, p, x), case.params, case.inputs)
        batches = np.array_split(case.inputs, min(2, case.inputs.shape[case.axis]), axis=case.axis)
        return ntkest.linearize_batches(
            lambda p, x: case.function(anp, p, x), case.params, batches, batch_axis=case.axis, keep=keep
        )

    check_backend(make)


def test_at_moves_all_batches():
    moved = {name: p + 0.1 for name, p in PARAMS.items()}
    J = ntkest.linearize_batches(net, PARAMS, BATCHES)
    assert_equal_linearizations(J.at(moved), ntkest.linearize(net, moved, X))
    assert_equal_linearizations(J, ntkest.linearize(net, PARAMS, X))


@pytest.mark.parametrize(
    ("batches", "inputs"),
    [
        ([(x, np.arange(len(x))) for x in BATCHES], 0),
        ([{"data": x, "label": 1} for x in BATCHES], "data"),
        ([{"data": x} for x in BATCHES], lambda batch: (batch["data"],)),
        ([{"x": x} for x in BATCHES], None),
        ([(x,) for x in BATCHES], None),
        ([[2 * x, 1] for x in BATCHES], lambda batch: {"x": batch[0] / 2}),
        (np.array_split(X, 2), None),
    ],
    ids=["index", "key", "function", "mapping", "tuple", "function-to-mapping", "arrays"],
)
def test_inputs_picks_what_the_model_takes(batches, inputs):
    J = ntkest.linearize_batches(net, PARAMS, batches, inputs=inputs)
    np.testing.assert_allclose(J.outputs, net(PARAMS, X), rtol=1e-14)


def test_output_and_params_are_picked_as_by_linearize():
    J = ntkest.linearize_batches(lambda p, x: {"y": net(p, x), "x": x}, PARAMS, BATCHES, output="y", params=["v"])
    assert_equal_linearizations(J, ntkest.linearize(net, PARAMS, X, params=["v"]))


def test_batch_axis_none_puts_losses_into_one_axis():
    def loss(p, x):
        return anp.sum(net(p, x) ** 2)

    J = ntkest.linearize_batches(loss, PARAMS, BATCHES, batch_axis=None)
    assert J.examples is None
    rows = np.concatenate([jacobian(ntkest.linearize(loss, PARAMS, x)) for x in BATCHES])
    np.testing.assert_allclose(jacobian(J), rows, atol=1e-13)


def test_half_precision_is_added_in_float32():
    batches = [np.full((1, 1), value, np.float16) for value in (2048, *[1] * 20)]
    J = ntkest.linearize_batches(lambda w, x: x * w, np.ones(1, np.float16), batches, batch_axis=0)
    assert J.vjp(np.ones((1, 21), np.float16))[0].item() == 2068  # in float16, 2048 + 1 is 2048


class Shuffled:
    def __init__(self, order):
        self.order, self.reads = order, count()

    def __iter__(self):
        order = self.order(next(self.reads))
        return (BATCHES[i] for i in order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda read: [0, 1, 2] if read == 0 else [1, 0, 2], "batch 0 had the shape"),
        (lambda read: [1, 2] if read == 0 else [2, 1], "batch 0 differ by .*shuffle=False"),
    ],
)
def test_shuffling_is_seen_when_linearized(order, message):
    with pytest.raises(NotRepeatableError, match=message):
        ntkest.linearize_batches(net, PARAMS, Shuffled(order))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda read: [0, 1, 2] if read < 2 else [0, 2, 1], "batch 1 differ by"),
        (lambda read: [0, 1, 2] if read < 2 else [0, 1], "3 batches before, and now there are 2"),
        (lambda read: [0, 1, 2] if read < 2 else [0, 1, 2, 2], "3 batches before, and now there are more"),
    ],
)
def test_other_batches_in_a_later_pass_are_seen(order, message):
    J = ntkest.linearize_batches(net, PARAMS, Shuffled(order))
    with pytest.raises(NotRepeatableError, match=message):
        J.vjp(np.ones((1, 14)))


def test_shuffling_is_harmless_when_batches_are_kept():
    orders = [[0, 1, 2], [2, 1, 0]]
    J = ntkest.linearize_batches(net, PARAMS, Shuffled(lambda read: orders[min(read, 1)]), keep=True)
    assert_equal_linearizations(J, ntkest.linearize(net, PARAMS, X))


def test_changed_parameters_are_seen_or_were_copied():
    params = {name: p.copy() for name, p in PARAMS.items()}
    J, copied = (ntkest.linearize_batches(net, params, BATCHES, copy=copy) for copy in (False, True))
    params["w"][0, 0] += 1e-9
    with pytest.raises(StaleLinearizationError, match="'w' was changed"):
        J.vjp(np.ones((1, 14)))
    assert_equal_linearizations(copied, ntkest.linearize(net, PARAMS, X))


X2 = rng.standard_normal((4, 3))
REFUSED = {
    "generator": ((net, PARAMS, (x for x in BATCHES)), {}, InvalidTypeError, "generator, which can be read only once"),
    "array": ((net, PARAMS, X), {}, InvalidTypeError, "for a single batch use linearize"),
    "number": ((net, PARAMS, 3), {}, InvalidTypeError, "iterable of batches, not int"),
    "mapping": ((net, PARAMS, {"x": X}), {}, InvalidTypeError, "iterable of batches, not dict"),
    "empty": ((net, PARAMS, []), {}, InvalidValueError, "no batches"),
    "no batches": ((net,), {}, InvalidTypeError, "got 0 arguments"),
    "inputs": ((net, PARAMS, BATCHES, X), {}, InvalidTypeError, "got 3 arguments"),
    "not a model": ((PARAMS, BATCHES), {}, InvalidTypeError, "not dict"),
    "wrong index": ((net, PARAMS, [(X,)]), {"inputs": 3}, InvalidValueError, "inputs=3 picks nothing"),
    "wrong key": ((net, PARAMS, [{"x": X}]), {"inputs": "y"}, InvalidValueError, "dict with 'x'"),
    "interacting": (
        (lambda p, x: net(p, x - anp.mean(x, axis=0)), PARAMS, BATCHES),
        {},
        InteractingExamplesError,
        "do not interact",
    ),
    "one example": ((net, PARAMS, [X[:1], X[1:]]), {}, InteractingExamplesError, "give batch_axis="),
    "lengths": (
        (lambda p, x: x * p["w"][0, 0], PARAMS, [X2, rng.standard_normal((4, 5))]),
        {},
        ShapeError,
        r"one has \(4, 5\), the first \(4, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_clear_error(name):
    args, options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ntkest.linearize_batches(*args, **options)


def test_only_one_batch_is_alive_at_a_time():
    def wide(p, x):  # a large intermediate
        return anp.sum(anp.tanh(x[:, :, None] * p["w"]), axis=(1, 2))[:, None]

    params, batches = {"w": np.ones((1, 2000))}, [rng.standard_normal((20, 10)) for _ in range(12)]

    def peak(batches):
        tracemalloc.start()
        J = ntkest.linearize_batches(wide, params, batches, check=False, batch_axis=0)
        J.vjp(np.ones((1, J.outputs.size)))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(batches) < 1.1 * peak(batches[:1])
