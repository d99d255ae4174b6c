"""Every estimator and quantity in jax: against explicit Jacobians, under transformations, and in every precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkest
from ntkest.linearization import TracedValueError
from ntkest.tangents import SquareNorms
from tests.jax.cases import BY_NAME, Built, dense, draw, flat, nested, signs

NETS = ("mlp", "convnet", "gru", "transformer")
METHODS = (
    "reverse",
    "forward",
    "hutchinson",
    "hutch++",
    "hutch++jv",
    "nystrom++",
    "xnystrace",
    "xtrace",
    "xtrace-power",
    "exact",
    "auto",
)


def linearize(built, params=None, **options):
    first, *inputs = built.args
    return ntkest.linearize(built.target, first if params is None else params, *inputs, **options)


def moved(built, seed=11, scale=0.3):
    """The same function at other parameters, with its own oracle."""
    point = {n: a + scale * draw(seed + i, *a.shape) for i, (n, a) in enumerate(built.point.items())}
    params, *inputs = built.args
    return Built(built.target, (nested(point, params), *inputs), built.plain, point)


def another_architecture(built):
    """A network of another shape, on the same outputs."""
    shape = built.plain(built.point).shape
    layers = {"down": dense(5, 3, int(np.prod(shape[1:]))), "up": dense(6, 2, 3)}
    x = draw(9, shape[0], 2)

    def f(params, x):
        h = jnp.tanh(x @ params["up"]["w"] + params["up"]["b"])
        return (h @ params["down"]["w"] + params["down"]["b"]).reshape(shape)

    return Built(f, (layers, x), lambda v: f(nested(v, layers), x), flat(layers))


def kernels(built, by_layer):
    """{part: explicit K} in float64; "" is the whole."""
    blocks = {n: np.asarray(b, np.float64) for n, b in built.jacobian().items()}
    parts = {"": sum(b @ b.T for b in blocks.values())}
    for name, b in blocks.items() if by_layer else ():
        layer = name.rpartition(".")[0] or name
        parts[layer] = parts.get(layer, 0) + b @ b.T
    return parts


def cosine(A, B):
    return (A * B).sum() / np.linalg.norm(A) / np.linalg.norm(B)


def centred(K):
    return K - K.mean(0, keepdims=True) - K.mean(1, keepdims=True) + K.mean()


def check(estimate, wanted, rtol=1e-9):
    assert float(estimate) == pytest.approx(wanted[""], rel=rtol)
    assert set(estimate.parts) == set(wanted) - {""}
    for name, part in estimate.parts.items():
        assert float(part) == pytest.approx(wanted[name], rel=rtol)


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.usefixtures("float64")
def test_exact_of_an_mlp_equals_the_formulas_of_the_explicit_jacobian(by):
    check_exact(BY_NAME["mlp"].build(), by)


@pytest.mark.parametrize("name", ["convnet", "gru", "transformer"])
@pytest.mark.usefixtures("float64")
def test_exact_by_layer_equals_the_formulas_of_the_explicit_jacobian(name):
    check_exact(BY_NAME[name].build(), "layer")


def check_exact(built, by):
    J, K = linearize(built, check=False), kernels(built, by)
    y = np.random.default_rng(5).standard_normal(J.outputs.shape)
    u = y.ravel() / np.linalg.norm(y)
    found = ntkest.summary(J, jnp.asarray(y), method="exact", by=by)
    check(found["trace"], {n: np.trace(k) for n, k in K.items()})
    check(found["frobenius_norm"], {n: np.linalg.norm(k) for n, k in K.items()})
    check(found["effective_rank"], {n: np.trace(k) ** 2 / (k * k).sum() for n, k in K.items()})
    check(found["alignment"], {n: u @ k @ u / np.linalg.norm(k) for n, k in K.items()})


@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("float64")
def test_exact_alignment_with_other_parameters_or_another_architecture_equals_that_of_the_explicit_kernels(name):
    built = BY_NAME[name].build()
    other, unlike = moved(built), another_architecture(built)
    K, L, (U,) = kernels(built, "layer"), kernels(other, "layer"), kernels(unlike, None).values()
    J = linearize(built, check=False)
    there, far = J.at(other.args[0]), linearize(unlike, check=False)
    check(
        ntkest.alignment(J, there, method="exact", by="layer", centered=True),
        {n: cosine(centred(K[n]), centred(L[n])) for n in K},
    )
    check(ntkest.alignment(J, there, method="exact"), {"": cosine(K[""], L[""])})
    check(ntkest.alignment(J, far, method="exact"), {"": cosine(K[""], U)})


def small():
    """A tanh network with M = 12 outputs and P = 26 parameters; an input, another point, and targets."""
    params = {"first": dense(1, 3, 4), "last": dense(3, 4, 2)}

    def f(p, x):
        return jnp.tanh(x @ p["first"]["w"] + p["first"]["b"]) @ p["last"]["w"] + p["last"]["b"]

    return f, params, draw(0, 6, 3), jax.tree.map(lambda a: 1.5 * a + 0.1, params), draw(8, 6, 2)


EVERYTHING = ("reverse", "hutch++", "xnystrace")
"""Methods of which every quantity is compiled here; of others with the slow tests, for it takes up to a minute."""


@pytest.mark.parametrize(
    ("method", "everything"),
    [
        *((method, method in EVERYTHING) for method in METHODS),
        *(pytest.param(method, True, marks=pytest.mark.slow) for method in METHODS if method not in EVERYTHING),
    ],
)
@pytest.mark.usefixtures("float64")
def test_every_estimator_runs_in_jit_grad_and_vmap(method, everything):
    f, params, x, elsewhere, y = small()
    direction = jax.tree.map(lambda p: signs(p.size, *p.shape), params)
    # of the last three, fewer samples than outputs
    passes = {"exact": None, "xnystrace": 21, "xtrace": 33, "xtrace-power": 49}.get(method, 40)
    keywords = {"method": method} if passes is None else {"method": method, "passes": passes}

    def values(s, x, alone=not everything):
        """Values and standard errors of the trace, the norm, the effective rank, and of alignments if wanted."""
        J = ntkest.linearize(f, jax.tree.map(lambda p, d: p + s * d, params, direction), x)
        found = [*ntkest.summary(J, y if everything else None, **keywords).values()]
        if not alone:
            found.append(ntkest.alignment(J, ntkest.linearize(f, elsewhere, x), **keywords))
        return jnp.stack([*(e.value for e in found), *(e.std_error for e in found)])

    weights = jnp.asarray([1.0, -0.7, 2.3, 31.0, 17.0, 1.9, -2.9, 1.3, 4.1, -9.7])

    def scored(s, x):
        found = values(s, x)
        return found @ weights[: found.shape[0]], found

    h = 1e-5
    s, X = jnp.asarray([0.0, h, -h, 0.0]), jnp.stack([x, x, x, 2 * x])
    (score, found), slope = jax.jit(jax.vmap(jax.value_and_grad(scored, has_aux=True)))(s, X)
    first = np.asarray([0, 1, 2, 3, 5, 6, 7, 8]) if everything else slice(None)
    np.testing.assert_allclose(found[0, first], values(0.0, x, alone=True), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found[3, first], values(0.0, 2 * x, alone=True), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(slope[0], (score[1] - score[2]) / (2 * h), rtol=1e-5)
    assert abs(slope[0]) > 1e-2


def test_twenty_jitted_steps_with_new_probes_compile_once(compilations):
    f, params, x, _, y = small()

    @jax.jit
    def train(params, probes):
        def loss(p):
            J = ntkest.linearize(f, p, x, batch_axis=0)
            return ((J.outputs - y) ** 2).mean() + 1e-3 * ntkest.trace(J, probes=probes).value

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

    J = ntkest.linearize(f, params, x)
    probes = [ntkest.draw_probes(J, 6, seed=seed) for seed in range(21)]
    params, first = train(params, probes[0])
    compilations()
    for drawn in probes[1:]:
        params, last = train(params, drawn)
    assert compilations() == 0
    assert last < first


def test_twenty_eager_steps_with_fresh_closures_compile_in_the_first_only(compilations):
    f, params, x, _, y = small()
    exponents = set()
    per_step, values = [], []
    for step in range(20):
        compilations()
        batch = x + 0.1 * step
        J = ntkest.linearize(lambda p: f(p, batch), params)  # noqa: B023 - called at once
        values.append(float(ntkest.trace(J, passes=8, seed=step)))
        exponents.add(J.exponent)
        slopes = J.vjp((J.outputs - y).reshape(1, -1))
        leaves, tree = jax.tree.flatten(params)
        params = jax.tree.unflatten(tree, [p - 0.01 * g.reshape(p.shape) for p, g in zip(leaves, slopes, strict=True)])
        per_step.append(compilations())
    assert per_step[0] > 0
    assert per_step[1:] == [0] * 19
    assert len(set(values)) == 20
    assert len(exponents) > 1  # the scale drifted, and still nothing was compiled


def test_probes_handed_in_give_what_their_seed_gives():
    f, params, x, elsewhere, _ = small()
    J, other = ntkest.linearize(f, params, x), ntkest.linearize(f, elsewhere, x)
    for method in ("reverse", "forward"):
        probes = ntkest.draw_probes(J, 8, seed=3, method=method, other=other)

        @jax.jit
        def inside(p, probes):
            J = ntkest.linearize(f, p, x)
            return ntkest.alignment(J, other, probes=probes, method=method).value  # noqa: B023 - called at once

        wanted = ntkest.alignment(J, other, method=method, seed=3, passes=16)
        assert float(inside(params, probes)) == pytest.approx(float(wanted), rel=1e-5)


def test_estimates_under_tracing_give_arrays_and_say_what_cannot_be_had():
    f, params, x, _, _ = small()

    def inside(what):
        return jax.jit(lambda p: what(ntkest.linearize(f, p, x)))(params)

    value, error = inside(lambda J: (lambda e: (e.value, e.std_error))(ntkest.trace(J, passes=8)))
    assert 0 < error < value
    with pytest.raises(TracedValueError, match=r"return \.value and \.std_error"):
        inside(lambda J: ntkest.trace(J, passes=8).interval())
    with pytest.raises(TracedValueError, match=r"return \.value"):
        inside(lambda J: ntkest.trace(J, passes=8).converged)
    for method in ("auto", "reverse"):
        with pytest.raises(TracedValueError, match="give passes="):
            inside(lambda J: ntkest.trace(J, method=method, rtol=0.5, max_passes=11).value)  # noqa: B023
    assert inside(lambda J: ntkest.trace(J, passes=8).value * (ntkest.trace(J, passes=8).about["device"] == "traced"))


@pytest.mark.usefixtures("float64")
def test_shorter_floats_agree_with_float64_within_their_rounding():
    built = BY_NAME["mlp"].build()
    y = draw(5, 7, 3)

    def found(args, y):
        return ntkest.summary(ntkest.linearize(built.target, *args), y, passes=20, method="reverse")

    for dtype, rtol in (("float16", 1e-2), ("bfloat16", 6e-2)):
        short = jax.tree.map(lambda a: a.astype(dtype), built.args)  # noqa: B023 - called at once
        wanted = found(jax.tree.map(lambda a: a.astype(jnp.float64), short), y)  # the same point, to the last bit
        for name, e in found(short, y.astype(dtype)).items():
            assert e.value.dtype == e.std_error.dtype == jnp.float32
            assert wanted[name].value.dtype == jnp.float64
            assert float(e) == pytest.approx(float(wanted[name]), rel=rtol)
            assert 0 < float(e.std_error) < float(e)


def test_rescaled_outputs_rescale_the_trace_and_leave_ratios_alone():
    built = BY_NAME["mlp"].build()
    params, x = built.args
    y = draw(5, 7, 3)

    def all_of(s):
        J = ntkest.linearize(lambda p, x, s: built.target(p, x) * s, params, x, jnp.float32(s))
        return ntkest.summary(J, y, passes=20, method="reverse")

    plain = all_of(1.0)
    for s in (1e-15, 1e-7, 1e6, 1e15):
        scaled = all_of(s)
        assert float(scaled["trace"]) / s / s == pytest.approx(float(plain["trace"]), rel=1e-5)
        assert float(scaled["frobenius_norm"]) / s / s == pytest.approx(float(plain["frobenius_norm"]), rel=1e-5)
        for name in ("effective_rank", "alignment"):
            assert float(scaled[name]) == pytest.approx(float(plain[name]), rel=1e-5)
            assert float(scaled[name].std_error) == pytest.approx(float(plain[name].std_error), rel=1e-3)


@pytest.mark.parametrize("method", ["reverse", "forward", "exact"])
@pytest.mark.usefixtures("float64")
def test_chunks_change_nothing_beyond_rounding(method):
    J = linearize(BY_NAME["mlp"].build(), check=False)
    keywords = {"method": method} if method == "exact" else {"method": method, "passes": 11}
    values = [float(ntkest.trace(J, chunk=chunk, **keywords)) for chunk in (None, 1, 3, 8, 100)]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)
    assert ntkest.trace(J, chunk=3, **keywords).about["chunk"] == 3


@pytest.mark.parametrize("method", ["reverse", "forward"])
def test_windows_leave_the_squared_norm_unbiased(method):
    A = np.random.default_rng(0).standard_normal((6, 9)) * np.linspace(0.3, 2, 9)
    J = ntkest.from_jacobian(A)
    found = [
        float(ntkest.frobenius_norm(J, method=method, passes=11, seed=seed, memory=400)) ** 2 for seed in range(200)
    ]
    whole = float(ntkest.frobenius_norm(J, method=method, passes=11, seed=0)) ** 2
    wanted = np.linalg.norm(A @ A.T) ** 2
    assert abs(np.mean(found) - wanted) < 5 * np.std(found) / np.sqrt(200)
    assert found[0] != pytest.approx(whole, rel=1e-6)  # there were windows


@pytest.mark.usefixtures("float64")
def test_exact_in_tiny_memory_equals_exact():
    built = BY_NAME["mlp"].build()
    J, y = linearize(built, check=False), draw(5, 7, 3)
    each = 8 * sum(p.size for p in J.params)
    roomy = ntkest.summary(J, y, method="exact")
    tight = ntkest.summary(J, y, method="exact", memory=14 * each)
    assert tight.passes > roomy.passes
    for name, e in roomy.items():
        assert float(tight[name]) == pytest.approx(float(e), rel=1e-12)


def test_norms_of_many_long_rows_are_a_small_program():
    norms, images = SquareNorms(jnp, (0,), 1), draw(0, 300, 5000)
    assert len(jax.make_jaxpr(norms)(images).eqns) < 50
    wanted = (np.asarray(images, np.float64) ** 2).sum(1)
    for rows in (1, 32, 33, 300):
        np.testing.assert_allclose(norms(images[:rows])[:, 0], wanted[:rows], rtol=1e-5)


def test_a_split_that_is_chosen_from_values_says_what_to_use_when_traced():
    f, params, x, *_ = small()

    def trace(params):
        return ntkest.trace(ntkest.linearize(f, params, x), method="adaptive-hutch++", passes=60).value

    with pytest.raises(TracedValueError, match=r"nystrom\+\+"):
        jax.jit(trace)(params)
    assert float(trace(params)) > 0


@pytest.mark.parametrize("method", ["exact", "reverse", "hutch++", "nystrom++", "xnystrace"])
@pytest.mark.usefixtures("float64")
def test_alignments_have_derivatives_in_targets_and_run_over_batches_of_them(method):
    f, params, x, _, y = small()
    J, other, spent = ntkest.linearize(f, params, x), draw(3, *y.shape), {} if method == "exact" else {"passes": 36}

    def aligned(y):
        return ntkest.alignment(J, y, method=method, **spent).value

    h, slope = 1e-6, jax.grad(aligned)(y)
    numeric = (aligned(y + h * other) - aligned(y - h * other)) / (2 * h)
    np.testing.assert_allclose((slope * other).sum(), numeric, rtol=1e-5)
    both = jax.vmap(aligned)(jnp.stack([y, other]))
    np.testing.assert_allclose(both, [aligned(y), aligned(other)], rtol=1e-9)


def test_a_derivative_that_is_not_a_number_is_said_to_be():
    x = jnp.asarray(draw(0, 12, 6), jnp.float32).at[0].set(0.0)
    p = jnp.asarray(draw(1, 6, 3), jnp.float32)
    J = ntkest.linearize(lambda p, x: jnp.sqrt(((x @ p) ** 2).sum(1, keepdims=True)) * jnp.ones(3), p, x, check=False)
    for method in ("reverse", "nystrom++", "xnystrace", "xtrace"):
        with pytest.raises(ntkest.NTKError, match="finite"):
            ntkest.effective_rank(J, method=method, passes=40)
