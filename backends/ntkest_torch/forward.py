"""Forward mode: the route to J v that this model supports, found once and remembered."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch.autograd import forward_ad

from ntkest.linearization import UnsupportedModeError

from .errors import layer_of, out_of_memory
from .flags import differentiable_kernels, grad_mode, transforming
from .linear import LinearGraph
from .norms import ElementaryNorms
from .padding import PaddingHeld, pads
from .programs import Point, Program
from .reverse import Reverse

Tensors = tuple[torch.Tensor, ...]

MANY = 512
"""Nodes in a graph of which few can be large: it is a recurrent one, and forward mode the faster."""


@cache
def _load_decompositions() -> None:
    """Let torch load what forward mode needs at first use, which warns about torch's own scripted code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]


class Route:
    """What was learnt about a model's forward mode; shared by the linearizations of one model at many points."""

    def __init__(self) -> None:
        self.transposes = True
        """Jᵀu can be differentiated with respect to u, where that would be the faster way."""
        self.batches = True
        """Batching over tangents works: no in-place write or data-dependent step forbids it."""
        self.without_onednn = False
        """A oneDNN kernel without a forward derivative (LSTM) is in the way."""
        self.doubles = False
        """An operation has no forward derivative at all; two reverse passes stand in."""
        self.closed: UnsupportedModeError | None = None
        """Nor can it be differentiated twice."""


class Forward:
    """J v by forward mode, and where an operation lacks it, by differentiating Jᵀ u with respect to u.

    The latter is also the faster way through some dozens of layers without convolutions: Jᵀu is linear in u, so that
    its graph is made once, and a pass through that does the work of a JVP without the primal; see `LinearGraph`.

    Parameters
    ----------
    nodes : sequence of str
        Of the graph of reverse mode.
    """

    def __init__(
        self, program: Program, point: Point, live: bool, reverse: Reverse, route: Route, nodes: Sequence[str] = ()
    ) -> None:
        self._program = program
        self._point = point
        self._live = live
        self._reverse = reverse
        self._route = route
        self._linear: LinearGraph | None = None
        self._quick = not live and _is_quick(nodes)
        self._pads = program.module is not None and pads(program.module)

    @property
    def passes_per_jvp(self) -> int:
        """2 once double VJPs have taken over, else 1."""
        return 2 if self._route.doubles else 1

    def passes(self, tangents: Tensors) -> torch.Tensor:
        """Blocks (c, *parameter shape) to (c, *output shape)."""
        route = self._route
        if route.closed is not None:
            raise route.closed
        if self._quick and route.transposes and not transforming():
            try:
                return self._transposed(tangents)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                route.transposes, self._linear = False, None
        first: RuntimeError | None = None
        _load_decompositions()
        if not route.doubles:
            for without_onednn in (False, True)[route.without_onednn :]:
                for run in (self._batched, self._looped):
                    batched = run == self._batched
                    if batched and not (route.batches and (tangents[0].shape[0] > 1 or self._live)):
                        continue
                    try:
                        with differentiable_kernels(without_onednn), self._rules():
                            images = run(tangents)
                    except RuntimeError as error:
                        if out_of_memory(error):
                            raise
                        first = first or error
                        continue
                    if first is not None:
                        # Remember what worked, so that the failures are met once.
                        route.without_onednn = without_onednn
                        route.batches = route.batches and (batched or tangents[0].shape[0] == 1)
                    return images
        try:
            images = self._transposed(tangents)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            route.closed = self._unsupported(first or error)
            raise route.closed from error
        route.doubles = True
        return images

    @contextmanager
    def _rules(self) -> Iterator[None]:
        """What torch's own forward derivatives need to be right."""
        with ElementaryNorms() if self._live else nullcontext(), PaddingHeld() if self._pads else nullcontext():
            yield

    def _function(self) -> Callable[..., torch.Tensor]:
        return lambda *blocks: self._program(self._point.with_blocks(blocks))

    def _batched(self, tangents: Tensors) -> torch.Tensor:
        """All at once; with live parameters also a single one, for attention on dual numbers has no gradient."""
        blocks = tuple(self._point.blocks.values())
        with grad_mode(self._live):
            push = lambda *v: torch.func.jvp(self._function(), blocks, v)[1]  # noqa: E731
            images: torch.Tensor = torch.func.vmap(push)(*tangents)
            return images

    def _looped(self, tangents: Tensors) -> torch.Tensor:
        """Dual numbers have less overhead a pass than ``torch.func.jvp``, and need no functional transform."""
        images = []
        with grad_mode(self._live):
            for index in range(tangents[0].shape[0]):
                with forward_ad.dual_level():
                    duals = [
                        forward_ad.make_dual(block, v[index])  # type: ignore[no-untyped-call]
                        for block, v in zip(self._point.blocks.values(), tangents, strict=True)
                    ]
                    outputs = self._program(self._point.with_blocks(duals))
                    primal, image = forward_ad.unpack_dual(outputs)  # type: ignore[no-untyped-call]
                images.append(torch.zeros_like(primal) if image is None else image)
        return images[0].unsqueeze(0) if len(images) == 1 else torch.stack(images)

    def _transposed(self, tangents: Tensors) -> torch.Tensor:
        """Through a graph of Jᵀu: by the math kernel of attention, for fused ones cannot be differentiated twice."""
        with differentiable_kernels(self._route.without_onednn), self._rules():
            linear = self._linear or LinearGraph(self._program, self._reverse, self._live)
            if not self._live:
                self._linear = linear
            return linear.passes(tangents)

    def _unsupported(self, error: RuntimeError) -> UnsupportedModeError:
        module = self._program.module
        text = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        return UnsupportedModeError(
            f"forward mode fails at {layer_of(error, module)}, and so does a double VJP: {text}. Use a quantity with "
            "method='reverse', which needs VJPs only, or write the layer with operations that torch can differentiate "
            "twice (a custom autograd.Function: give it jvp())"
        )


def _is_quick(nodes: Sequence[str]) -> bool:
    """Whether torch itself made a graph, of layers that a second derivative is quick through."""
    slow = ("onvolution", "Rnn", "Checkpoint")
    few = 0 < len(nodes) <= MANY
    return few and all(_BUILT_IN.search(node) and not any(word in node for word in slow) for node in nodes)


_BUILT_IN = re.compile(r"Backward\d+$|^torch::autograd::AccumulateGrad$")
"""Nodes of torch's own; a custom function may have a second derivative that is wrong."""
