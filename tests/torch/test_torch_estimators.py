"""On real networks, ``method="exact"`` equals the explicit Jacobian, whole and by layer, for every quantity."""

from fnmatch import fnmatch

import numpy as np
import pytest
import torch

import ntkest
from ntkest.linearization import ShapeError
from tests import oracle
from tests.torch.models import NETS, columns, draw, jacobian

RTOL = 1e-10
FOUR = ("mlp", "convnet", "gru", "transformer")


def labels(shape):
    return torch.randint(shape[-1], shape[:-1], generator=torch.Generator().manual_seed(5))


def one_hot(classes, count):
    return np.eye(count)[classes.numpy()] - 1 / count


def layer_of(parameter):
    return parameter.rpartition(".")[0]


def among(wanted):
    """The predicate that params= stands for."""
    globs = [wanted] if isinstance(wanted, str) else wanted
    return lambda name: globs is None or any(fnmatch(name, glob) for glob in globs)


def assert_whole_and_layers(estimate, formula, *columns_where):
    """`estimate` and its parts against `formula` of kernels whose columns are those of a predicate."""
    assert float(estimate) == pytest.approx(formula(*(pick(lambda n: True) for pick in columns_where)), rel=RTOL)
    for layer, part in estimate.parts.items():
        blocks = [pick(lambda n, layer=layer: layer_of(n) == layer) for pick in columns_where]
        assert float(part) == pytest.approx(formula(*blocks), rel=RTOL), layer


@pytest.mark.parametrize("few", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("name", FOUR)
def test_trace_norm_and_rank(name, few):
    """By rows (VJPs) and, where few parameters are asked for, by columns (JVPs)."""
    module, x = NETS[name].make()
    params = NETS[name].few if few else None
    keep = among(params)
    J = ntkest.linearize(module, x, params=params)
    found = ntkest.summary(J, by="layer", method="exact")
    assert found["trace"].n_jvp == (sum(p.numel() for p in J.params) if few else 0)
    assert list(found["trace"].parts) == list(dict.fromkeys(map(layer_of, J.param_names)))
    for quantity in ("trace", "frobenius_norm", "effective_rank"):
        formula = getattr(oracle, quantity)
        assert_whole_and_layers(
            found[quantity],
            lambda A, formula=formula: formula(oracle.kernel(A)),
            lambda layer: columns(name, lambda n: keep(n) and layer(n)),
        )
        alone = getattr(ntkest, quantity)(J, method="exact")
        assert float(alone) == pytest.approx(float(found[quantity]), rel=RTOL)


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("few", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("name", FOUR)
def test_alignment_with_targets_and_labels(name, centered, few):
    net = NETS[name]
    module, x = net.make()
    params = net.few if few else None
    keep, H = among(params), oracle.centring(net.shape, centered)
    J = ntkest.linearize(module, x, params=params)
    targets, classes = draw(*net.shape, seed=6), labels(net.shape)
    for given, y in ((targets, targets.numpy()), (classes, one_hot(classes, net.shape[-1]))):
        assert_whole_and_layers(
            ntkest.alignment(J, given, by="layer", centered=centered, method="exact"),
            lambda A, y=y: oracle.target_alignment(oracle.kernel(A, H), y, H),
            lambda layer: columns(name, lambda n: keep(n) and layer(n)),
        )


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("name", FOUR)
def test_alignment_with_other_parameters(name, centered):
    module, x = NETS[name].make()
    later, _ = NETS[name].make(seed=1)
    J, H = ntkest.linearize(module, x), oracle.centring(NETS[name].shape, centered)
    for there in (J.at(later.state_dict()), ntkest.linearize(later, x)):
        assert_whole_and_layers(
            ntkest.alignment(J, there, by="layer", centered=centered, method="exact"),
            lambda A, B: oracle.alignment(oracle.kernel(A, H), oracle.kernel(B, H)),
            lambda layer: columns(name, layer),
            lambda layer: columns(name, layer, seed=1),
        )


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("name", NETS)
def test_alignment_with_another_architecture(name, centered):
    """An MLP with a ConvNet, a recurrent net with one that is applied to every step, and so on."""
    net = NETS[name]
    module, x = net.make()
    other, inputs = NETS[net.other].make()
    J, K = ntkest.linearize(module, x), ntkest.linearize(other, inputs)
    H = oracle.centring(net.shape, centered)
    wanted = oracle.alignment(oracle.kernel(columns(name), H), oracle.kernel(columns(net.other), H))
    assert float(ntkest.alignment(J, K, centered=centered, method="exact")) == pytest.approx(wanted, rel=RTOL)
    with pytest.raises(ShapeError, match="parameter names"):
        ntkest.alignment(J, K, by="layer", method="exact")


@pytest.mark.parametrize(
    "method", ["reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "adaptive-hutch++"]
)
@pytest.mark.parametrize("name", FOUR)
def test_the_same_probes_give_what_they_give_for_the_explicit_jacobian(name, method):
    net = NETS[name]
    (module, x), (other, inputs) = net.make(), NETS[net.other].make()
    J, L = ntkest.linearize(module, x), ntkest.linearize(other, inputs)
    A, B = (ntkest.from_jacobian(dict(jacobian(n)), net.shape) for n in (name, net.other))
    y = draw(*net.shape, seed=6)
    keywords = {"method": method, "passes": 90, "seed": 4, "centered": "examples"}
    found, wanted = (ntkest.summary(*args, by="layer", **keywords) for args in ((J, y), (A, y.numpy())))
    pairs = [(e, wanted[quantity]) for quantity, e in found.items()]
    pairs += [(e.parts[layer], wanted[quantity].parts[layer]) for quantity, e in found.items() for layer in e.parts]
    pairs.append((ntkest.alignment(J, L, **keywords), ntkest.alignment(A, B, **keywords)))
    for ours, dense in pairs:
        assert float(ours) == pytest.approx(float(dense), rel=1e-9)
        assert float(ours.std_error) == pytest.approx(float(dense.std_error), rel=1e-6)
        assert ours.interval() == pytest.approx(dense.interval(), rel=1e-6)
        assert ours.value.dtype == ours.std_error.dtype == torch.float64
