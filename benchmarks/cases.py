"""The three models, and the floating-point operations of a pass through each. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass

PASSES = 32
MODES = ("reverse", "forward")


@dataclass(frozen=True)
class Product:
    """A matrix product or convolution of the model: parameters times what comes in."""

    flops: int
    """Of the forward product, a multiplication and an addition counting two."""
    first: bool = False
    """Its input does not depend on parameters, so that it has neither a cotangent nor a tangent."""

    @property
    def a_pass(self) -> int:
        """Of one VJP, or of one JVP without the primal.

        A VJP makes two products of the forward's size, ∂W = δ xᵀ and ∂x = Wᵀ δ; a JVP makes two, Ẇ x and W ẋ. The
        second of each falls away where the input is data.
        """
        return self.flops if self.first else 2 * self.flops


@dataclass(frozen=True)
class Case:
    """A model of the benchmark."""

    name: str
    title: str
    products: tuple[Product, ...]

    @property
    def pass_flops(self) -> int:
        """Floating-point operations of one pass: the products only, neither elementwise work nor the primal."""
        return sum(product.a_pass for product in self.products)


@dataclass(frozen=True)
class Dense:
    """Sizes of the MLP."""

    widths = (784, 512, 512, 10)
    batch = 64

    def case(self) -> Case:
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        products = tuple(Product(2 * self.batch * i * o, first=n == 0) for n, (i, o) in enumerate(pairs))
        return Case("mlp", "MLP 784-512-512-10, N=64", products)


@dataclass(frozen=True)
class Convolutional:
    """Sizes of the ConvNet: 3×3 convolutions of (inputs, outputs, stride), mean over pixels, linear head."""

    layers = ((3, 32, 1), (32, 64, 2), (64, 64, 2), (64, 64, 1))
    size = 32
    classes = 10
    batch = 32

    def case(self) -> Case:
        products, size = [], self.size
        for number, (inputs, outputs, stride) in enumerate(self.layers):
            size //= stride
            products.append(Product(2 * self.batch * size * size * 9 * inputs * outputs, first=number == 0))
        products.append(Product(2 * self.batch * self.layers[-1][1] * self.classes))
        return Case("convnet", "ConvNet, 94 k parameters, 3×32×32, N=32", tuple(products))


@dataclass(frozen=True)
class Recurrent:
    """Sizes of the GRU, whose outputs are the states at all times."""

    inputs = 10
    hidden = 128
    steps = 50
    batch = 16

    def case(self) -> Case:
        each = 2 * self.batch * self.steps * 3 * self.hidden
        return Case(
            "gru", "GRU 10→128, T=50, N=16", (Product(each * self.inputs, first=True), Product(each * self.hidden))
        )


MLP, CONVNET, GRU = Dense(), Convolutional(), Recurrent()

CASES: dict[str, Case] = {case.name: case for case in (MLP.case(), CONVNET.case(), GRU.case())}
