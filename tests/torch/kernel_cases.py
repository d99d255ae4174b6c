"""Layers with every option, for kernels; what they have in common with other tests is in `cases`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

from tests.torch.cases import CASES as COMMON
from tests.torch.cases import FIRST, Case, randn, tokens, twice


class Function(nn.Module):
    """Parameters of given shapes, and what is done with them."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5) for shape in shapes)

    def forward(self, *inputs):
        return self.function(*inputs, *self.weights)


def function(name, what, *shapes, inputs=None, examples=(0, 3)):
    return Case(name, lambda: Function(what, *shapes), inputs or randn(3, 4), examples)


class Frames(nn.Module):
    """A convolution on the frames of films, which are folded into the batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)

    def forward(self, x):
        return torch.tanh(self.conv(x.flatten(0, 1))).reshape(len(x), -1)


class Language(nn.Module):
    """A transformer on tokens with positions, whose head is the table of embeddings or another."""

    def __init__(self, tied):
        super().__init__()
        self.table, self.places = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(5, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, 7)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.block(self.table(tokens) + self.places(torch.arange(tokens.shape[1])))).mean(1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x[:, :2], x[:, 1:])


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)

    def forward(self, q, k, v):
        return self.attention(q, k, v)[0]


class Cells(nn.Module):
    """A cell at each step, with a state to begin with that is a parameter."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.start = kind(3, 4), nn.Parameter(torch.randn(1, 4))

    def forward(self, x):
        state = self.start.expand(len(x), 4)
        state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        return self.gru(pack_padded_sequence(x, lengths, batch_first=True))[1][0]


class Started(nn.Module):
    """An LSTM whose first state depends on the example."""

    def __init__(self):
        super().__init__()
        self.lstm, self.start = nn.LSTM(3, 4), nn.Linear(3, 4)

    def forward(self, x):
        state = self.start(x[:1])
        outputs, (h, c) = self.lstm(x, (state, torch.sin(state)))
        return torch.cat([outputs, h, c])


class Adapted(nn.Module):
    """A frozen weight with a trainable bias, and a low-rank term."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.layer.weight.requires_grad_(False)
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return torch.tanh(self.layer(x) + self.up(self.down(x)))


class Unused(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer, self.other = nn.Linear(4, 3), nn.Parameter(torch.ones(0, 3))

    def forward(self, x):
        return torch.tanh(self.layer(x)) + self.other.sum()


def conv(name, layer, *shape):
    return Case(name, lambda: nn.Sequential(layer(), nn.Tanh()), randn(3, *shape), (0, 3))


CONVOLUTIONS = [
    conv("conv1d same", lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=3), 2, 12),
    conv("conv1d reflect", lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), 2, 6),
    conv("conv1d circular", lambda: nn.Conv1d(2, 3, 3, padding="same", padding_mode="circular"), 2, 6),
    conv("conv2d replicate", lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="replicate"), 2, 4, 5),
    conv("conv2d options", lambda: nn.Conv2d(2, 3, (3, 2), (2, 1), (2, 1), (1, 3), bias=False), 2, 7, 6),
    conv("conv2d valid", lambda: nn.Conv2d(2, 3, 2, padding="valid"), 2, 4, 4),
    conv("conv2d pointwise", lambda: nn.Conv2d(5, 6, 1), 5, 2, 1),
    conv("conv2d groups", lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), 4, 5, 5),
    conv("conv2d depthwise", lambda: nn.Conv2d(3, 6, 3, padding="same", groups=3), 3, 5, 4),
    conv("conv3d options", lambda: nn.Conv3d(2, 2, (2, 1, 3), (1, 2, 2), (1, 0, 1), groups=2), 2, 3, 3, 4),
    conv("transposed 1d", lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, output_padding=1, groups=2), 4, 4),
    conv("transposed 2d", lambda: nn.ConvTranspose2d(2, 3, (3, 2), (2, 1), (1, 0), (1, 0), dilation=(1, 2)), 2, 3, 3),
    conv("transposed longer", lambda: nn.ConvTranspose1d(2, 3, 2, 1, output_padding=2, dilation=3), 2, 4),
    conv("transposed 3d", lambda: nn.ConvTranspose3d(1, 2, 2, stride=2, bias=False), 1, 2, 2, 2),
    conv("convolution used twice", lambda: twice(nn.Conv2d(2, 2, 3, padding=1)), 2, 4, 4),
    conv("normed weight", lambda: weight_norm(nn.Conv2d(2, 3, 2)), 2, 3, 3),
    Case("films", Frames, randn(3, 2, 2, 4, 4), (0, 3)),
    function(
        "there and back",
        lambda x, w: functional.conv_transpose2d(torch.tanh(functional.conv2d(x, w)), w),
        (3, 2, 2, 2),
        inputs=randn(3, 2, 3, 3),
    ),
    function(
        "convolution and penalty",
        lambda x, w: functional.conv1d(x, w) + torch.sum(w**3),
        (3, 2, 2),
        inputs=randn(3, 2, 4),
    ),
    function("one filter", lambda x, w: functional.conv1d(x[:, None], w[1:2]), (3, 1, 2)),
]

MATRICES = [
    function("matrix product", lambda x, w: torch.tanh(x @ w), (4, 5)),
    function("transposed product", lambda x, w: torch.tanh(x @ w.T) @ w, (5, 4)),
    function("sum and product", lambda x, w, b: torch.addmm(b, x, w), (4, 5), (5,)),
    function("scaled sum and product", lambda x, w, b: torch.addmm(b, x, w, beta=2, alpha=3), (4, 5), (5,)),
    function("one bias for all", lambda x, w, b: torch.addmm(b, x, w), (4, 5), (1,)),
    function("thirds", lambda x, w: torch.cat([functional.linear(x, v) for v in w.chunk(3)[1:]], 1), (6, 4)),
    function("halves", lambda x, w, b: functional.linear(x, w[2:], b[:2]), (4, 4), (4,)),
    function("some rows", lambda x, w: torch.tanh(x @ w[1:3].T) @ w[0:2], (4, 4)),
    function("every other row", lambda x, w: torch.tanh(x @ w[::2].T), (6, 4)),
    function("some columns", lambda x, w: torch.tanh(x[:, :2] @ w[:, 1:3].mT), (5, 4)),
    function("one row", lambda x, w: functional.linear(x, w[0]), (2, 4)),
    function("product and penalty", lambda x, w: x @ w + torch.sum(w**2), (4, 4)),
    function("product and constant", lambda x, w: torch.tanh(x @ w.T) @ w.detach().T, (4, 4)),
    function("on a constant", lambda x, w: x + functional.linear(x.new_ones(4), w), (4, 4)),
    Case("sequence", lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU()), randn(3, 5, 4), (0, 3)),
    Case("dense layer used twice", lambda: twice(nn.Linear(4, 4)), randn(3, 2, 4), (0, 3)),
    Case("adapted", Adapted, randn(3, 4), (0, 3)),
    Case("normed rows", lambda: weight_norm(nn.Linear(4, 3), dim=1), randn(3, 4), (0, 3)),
    Case("normed whole", lambda: weight_norm(nn.Linear(4, 3), dim=None), randn(3, 4), (0, 3)),
    Case("bilinear", lambda: Bilinear(), randn(3, 4), (0, 3)),
    Case("empty parameter", Unused, randn(3, 4), (0, 3)),
]


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.form = nn.Bilinear(4, 4, 2)

    def forward(self, x):
        return self.form(x, torch.sin(x))


TABLES = [
    Case("embedding within a norm", lambda: nn.Embedding(6, 3, max_norm=0.5), tokens(6, 3, 2), (0, 3)),
    Case("sums", lambda: nn.EmbeddingBag(6, 3, mode="sum"), tokens(6, 3, 4), (0, 3)),
    Case("means", lambda: nn.EmbeddingBag(6, 3), tokens(6, 3, 4), (0, 3)),
    Case("means, padded", lambda: nn.EmbeddingBag(6, 3, padding_idx=0), tokens(6, 3, 4), (0, 3)),
    Case("language model", lambda: Language(False), tokens(7, 3, 5), (0, 3)),
    Case("language model, tied", lambda: Language(True), tokens(7, 3, 5), (0, 3)),
    function(
        "tables of all kinds",
        lambda i, w: functional.embedding(i, w) @ w[1:3].T + functional.embedding(i % 3, w[:4].T)[..., :2],
        (6, 3),
        inputs=tokens(6, 3, 4),
    ),
    function("part of a table", lambda i, w: functional.embedding(i, w[2:]), (6, 3), inputs=tokens(4, 3, 4)),
]

SEQUENCES = [
    Case("decoder", Decoder, randn(3, 4, 4), (0, 3)),
    Case("cross attention", Attention, lambda: tuple(torch.randn(3, n, 4) for n in (2, 3, 3)), (0, 3)),
    Case(
        "attention of other widths",
        lambda: Attention(kdim=3, vdim=2, add_bias_kv=True),
        lambda: (torch.randn(3, 2, 4), torch.randn(3, 3, 3), torch.randn(3, 3, 2)),
        (0, 3),
    ),
    Case("instance norm", lambda: nn.InstanceNorm1d(3, affine=True), randn(3, 3, 4), (0, 3)),
    Case("parametric relu", lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(3)), randn(3, 2, 4), (0, 3)),
    Case("relu rnn", lambda: nn.RNN(3, 4, 2, "relu", bidirectional=True), randn(5, 3, 3), (1, 3), FIRST),
    Case("gru without biases", lambda: nn.GRU(3, 4, 2, bias=False, batch_first=True), randn(3, 4, 3), (0, 3), FIRST),
    Case("gru two-way", lambda: nn.GRU(3, 4, bidirectional=True), randn(4, 3, 3), (1, 3), FIRST),
    Case("lstm with a state", Started, randn(4, 3, 3), (1, 3)),
    Case("lstm projected", lambda: nn.LSTM(3, 4, proj_size=2), randn(4, 3, 3), (1, 3), FIRST),
    Case("gru packed", Packed, randn(3, 4, 3), (0, 3)),
    Case("rnn cell", lambda: Cells(nn.RNNCell), randn(3, 4, 3), (0, 3)),
    Case("gru cell", lambda: Cells(nn.GRUCell), randn(3, 4, 3), (0, 3)),
    Case("lstm cell", lambda: Cells(nn.LSTMCell), randn(3, 4, 3), (0, 3)),
]

APART = {"means, padded", "lstm projected", "gru packed", "embedding within a norm"}
"""Where each example has a graph of its own, for want of a batching rule of torch."""

CASES = [
    *(case for case in COMMON if case.examples is not None and not case.train),
    *CONVOLUTIONS,
    *MATRICES,
    *TABLES,
    *SEQUENCES,
]
