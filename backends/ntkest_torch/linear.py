"""Jᵀu as a graph in u, through which J v is a reverse pass."""

from __future__ import annotations

import torch

from .errors import out_of_memory
from .flags import grad_mode
from .programs import Program
from .reverse import Reverse

Tensors = tuple[torch.Tensor, ...]


class LinearGraph:
    """J v as the derivative of ⟨v, Jᵀu⟩ with respect to u, which does not depend on u.

    Costs a forward and a reverse pass to make, and then a pass for each v. Attention needs kernels with second
    derivatives while it is made. With `live` parameters J v has derivatives of its own.
    """

    def __init__(self, program: Program, reverse: Reverse, live: bool = False) -> None:
        self._program, self._live = program, live
        with grad_mode(True):
            outputs, blocks = reverse.graph(fresh=True)
            with program.autocast.left():
                self._u = torch.zeros_like(outputs, requires_grad=True)
                found = reverse.within(blocks, lambda: self._pulled(outputs, blocks))
        self._used = tuple(i for i, g in enumerate(found) if g is not None and g.requires_grad)
        self._gradients = tuple(found[i] for i in self._used)
        self._batches = not live

    def _pulled(self, outputs: torch.Tensor, blocks: Tensors) -> tuple[torch.Tensor | None, ...]:
        return torch.autograd.grad(outputs, blocks, self._u, create_graph=True, allow_unused=True)

    def passes(self, tangents: Tensors) -> torch.Tensor:
        """Blocks (c, *parameter shape) to (c, *output shape)."""
        count, chosen = tangents[0].shape[0], tuple(tangents[i] for i in self._used)
        with grad_mode(True), self._program.autocast.left():
            if count > 1 and self._batches:
                try:
                    return self._pass(chosen, batched=True)
                except RuntimeError as error:  # an operation without a batching rule
                    if out_of_memory(error):
                        raise
                    self._batches = False
            return torch.stack([self._pass(tuple(v[i] for v in chosen), batched=False) for i in range(count)])

    def _pass(self, tangents: Tensors, batched: bool) -> torch.Tensor:
        (image,) = torch.autograd.grad(
            self._gradients,
            self._u,
            tangents,
            retain_graph=True,
            create_graph=self._live,
            allow_unused=True,
            is_grads_batched=batched,
        )
        if image is None:
            batch = tangents[0].shape[:1] if batched else ()
            return self._u.new_zeros((*batch, *self._u.shape))
        return image if self._live else image.detach()
