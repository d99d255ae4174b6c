"""Process-wide and thread-wide settings of torch: what a pass needs, what it must not touch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

one_thread = threading.RLock()
"""Held by what is global to the process: the switches below, the level of torch's dual numbers, and a module
while `functional_call` has other tensors in it."""


@contextmanager
def differentiable_kernels(without_onednn: bool = False) -> Iterator[None]:
    """Switches that forward mode and second derivatives need, set while the model runs and then put back.

    Attention: only the MATH kernel of scaled-dot-product attention has those derivatives, and the fused inference
    path of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` has none. LSTM: the oneDNN kernel has no forward
    derivative; but without oneDNN convolutions are many times slower, so that is asked for separately.
    """
    with one_thread, ExitStack() as restore:
        restore.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        restore.enter_context(sdpa_kernel(SDPBackend.MATH))
        if without_onednn:
            # Not `mkldnn.flags(...)`: that also writes the TF32 setting, which warns on builds without it.
            restore.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
        yield


class Autocast:
    """The autocast setting at one moment, to be entered again whenever the model is called.

    The weight cache is off: it would hand out casts that were made outside a transform, cutting tangents off.
    """

    def __init__(self, device_types: Sequence[str]) -> None:
        self._seen = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in device_types
        )

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The reduced dtypes that were switched on."""
        return tuple(dtype for _, enabled, dtype in self._seen if enabled)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The recorded setting, also where that means to switch autocast off."""
        with ExitStack() as stack:
            for kind, enabled, dtype in self._seen:
                if enabled:
                    stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
                elif torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield

    @contextmanager
    def left(self) -> Iterator[None]:
        """Without autocast, as reverse passes want it: they use the dtypes of the forward."""
        with ExitStack() as stack:
            for kind, _, _ in self._seen:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield


class Dice:
    """The states of the random generators that a model may draw from."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = tuple(d for d in dict.fromkeys(devices) if d.type == "cuda")
        self._states = self._read()

    def _read(self) -> tuple[torch.Tensor, ...]:
        return (torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in self._devices))

    def _write(self, states: Sequence[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    @property
    def rolled(self) -> bool:
        """Whether anything has drawn from the generators since this was made."""
        return any(not torch.equal(a, b) for a, b in zip(self._states, self._read(), strict=True))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is drawn inside, the generators are as before after it."""
        states = self._read()
        try:
            yield
        finally:
            self._write(states)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """The same draws as when this was made, every time."""
        with self.kept():
            self._write(self._states)
            yield


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """Grad mode set, whatever the caller's ``no_grad`` or ``inference_mode`` says."""
    with torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield


def transforming() -> bool:
    """Whether a torch.func transform or torch.compile is at work here, so that nothing has a value to look at."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
