"""Recurrent layers, step by step: torch's own kernels tell neither examples apart nor where a weight is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional

from .layers import Dense

if TYPE_CHECKING:
    from .taps import Taps

Tensor: TypeAlias = torch.Tensor
State: TypeAlias = tuple[Tensor, ...]
"""h, and for an LSTM c."""

Step: TypeAlias = Callable[[Tensor, Tensor, State], State]
"""From what comes of the input and of h, each (B, gates · H), to the next state; formulas are those of torch."""


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    enter, forget, new, leave = (x + h).chunk(4, -1)
    c = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(c), c


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (reset, keep, new), (reset_h, keep_h, new_h) = x.chunk(3, -1), h.chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
    return (new + torch.sigmoid(keep + keep_h) * (state[0] - new),)


def _tanh(x: Tensor, h: Tensor, state: State) -> State:
    return (torch.tanh(x + h),)


def _relu(x: Tensor, h: Tensor, state: State) -> State:
    return (torch.relu(x + h),)


def _over_time(taps: Taps, step: Step, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, State]:
    """One layer in one direction: outputs (T, B, H) and the last state, from inputs (T, B, ·).

    The weight of the input is that of one dense layer; the weight of h is used at all steps, and noted as one use.
    """
    from_input, from_state, *biases = weights
    first, second = biases or (None, None)
    gates = taps.linear(x, from_input, first)
    tapped = taps.among(from_state, second)
    shape = (*x.shape[:2], from_state.shape[0])
    tap = taps.open(Dense(), shape[0] * shape[1], from_state, second, shape) if tapped else None
    more = [None] * len(x) if tap is None else tap.unbind(0)
    weight, bias = taps.given(from_state), taps.given(second)
    before, after = [], []
    for now, extra in zip(gates.unbind(0), more, strict=True):
        before.append(state[0])
        h = functional.linear(state[0], weight, bias)
        state = step(now, h if extra is None else h + extra, state)
        after.append(state[0])
    if tapped:
        taps.inputs.append(torch.stack(before))
    return torch.stack(after), state


def _layers(step: Step) -> Callable[..., Any]:
    """What ``torch.gru`` and its like do, or None for what is left to them.

    That is packed sequences, projections, dropout between layers and autocast.
    """

    def run(taps: Taps, x: Tensor, start: Any, weights: Any, has_biases: Any, *rest: Any) -> Any:
        if not isinstance(has_biases, bool):  # packed: arguments come in another order
            return None
        layers, dropout, training, bidirectional, batch_first = rest
        directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
        if len(weights) != layers * directions * each or (dropout and training):
            return None
        if torch.is_autocast_enabled(x.device.type):
            return None
        starts = [start] if torch.is_tensor(start) else list(start)
        x = x.transpose(0, 1) if batch_first else x
        ends = []
        for layer in range(layers):
            found = []
            for direction in range(directions):
                index = layer * directions + direction
                own = weights[index * each : (index + 1) * each]
                inputs = x.flip(0) if direction else x
                outputs, state = _over_time(taps, step, inputs, tuple(s[index] for s in starts), own)
                found.append(outputs.flip(0) if direction else outputs)
                ends.append(state)
            x = torch.cat(found, -1) if bidirectional else found[0]
        return x.transpose(0, 1) if batch_first else x, *(torch.stack(parts) for parts in zip(*ends, strict=True))

    return run


def _cell(step: Step) -> Callable[..., Any]:
    """What ``torch.gru_cell`` and its like do."""

    def run(taps: Taps, x: Tensor, start: Any, from_input: Tensor, from_state: Tensor, *biases: Tensor | None) -> Any:
        first, second = biases or (None, None)
        state = (start,) if torch.is_tensor(start) else tuple(start)
        found = step(taps.linear(x, from_input, first), taps.linear(state[0], from_state, second), state)
        return found if len(found) > 1 else found[0]

    return run


RECURRENT = {
    torch.lstm: _layers(_lstm),
    torch.gru: _layers(_gru),
    torch.rnn_tanh: _layers(_tanh),
    torch.rnn_relu: _layers(_relu),
    torch.lstm_cell: _cell(_lstm),
    torch.gru_cell: _cell(_gru),
    torch.rnn_tanh_cell: _cell(_tanh),
    torch.rnn_relu_cell: _cell(_relu),
}
