"""`linearize` itself, on every framework: what is the model's own and what is ours."""

import numpy as np
import pytest

import ntkest
from ntkest.testing import to_host
from tests.networks import linearized, network


def with_names(net, framework):
    """A network of one layer whose inputs have the names of arguments that functions between us and the model have."""
    own = linearized(net, framework)
    (weight, bias), x = own.params, own.xp.asarray(net.x)

    def model(tree, *, target, args, kwargs, options, self, inputs):
        return target * (inputs @ tree[0]) + kwargs["shift"] * tree[1] * options + args + self

    return (
        model,
        [weight, bias],
        {
            "target": 3.0,
            "args": 0.5,
            "kwargs": {"shift": 2.0},
            "options": 0.25,
            "self": 1.0,
            "inputs": x,
        },
    )


def test_a_model_may_have_keywords_of_any_name_that_is_not_ours(framework):
    net = network((3, 2))
    model, tree, keywords = with_names(net, framework)
    J = ntkest.linearize(model, tree, **keywords)
    wanted = net.jacobian() * np.concatenate([np.full(6, 3.0), np.full(2, 0.5)])
    found = np.concatenate([to_host(b) for b in J.vjp(J.xp.eye(10, dtype=J.outputs.dtype))], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert J.examples == (0, 5)


def test_keywords_of_a_batch_go_to_the_model_whatever_their_name(framework):
    net = network((3, 2))
    model, tree, keywords = with_names(net, framework)
    J = ntkest.linearize(model, tree, **keywords)
    batches = [{**keywords, "inputs": keywords["inputs"][rows]} for rows in (slice(0, 2), slice(2, 5))]
    streamed = ntkest.linearize_batches(model, tree, batches)
    np.testing.assert_allclose(
        float(ntkest.trace(streamed, method="exact")), float(ntkest.trace(J, method="exact")), rtol=1e-5
    )


def test_the_models_own_output_keyword_goes_by_position(framework):
    net = network((3, 2))
    own = linearized(net, framework)

    def model(tree, x, output):
        return {"a": x @ tree[0], "b": x @ tree[0] + tree[1]}[output]

    x = own.xp.asarray(net.x)
    J = ntkest.linearize(model, list(own.params), x, "b")
    np.testing.assert_allclose(to_host(J.outputs), net.outputs(), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="output"):
        ntkest.linearize(model, list(own.params), x, output="b")
