"""Has anything that a linearization refers to been changed since it was made?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ntkest.linearization import StaleLinearizationError


class Watch:
    """In-place version counters of tensors, and the train/eval flags of a module, as they were seen once.

    An alias made by ``detach`` shares the counter of the user's tensor, so ``optimizer.step()``,
    ``load_state_dict`` and every in-place operation show. Writes through ``tensor.data`` or NumPy
    do not count in torch, and so cannot be seen.
    """

    def __init__(self, tensors: Iterable[tuple[str, torch.Tensor]], module: nn.Module | None) -> None:
        self._tensors = [(what, tensor, tensor._version) for what, tensor in tensors if not tensor.is_inference()]
        self._modules = [] if module is None else [(name, part, part.training) for name, part in module.named_modules()]

    def check(self) -> None:
        """Raise `StaleLinearizationError` if something was changed."""
        for what, tensor, version in self._tensors:
            if tensor._version != version:
                raise StaleLinearizationError(
                    f"{what} was changed in place after the linearization was made; linearize again, use at(...), or "
                    "keep private copies with copy=True"
                )
        for name, part, training in self._modules:
            if part.training != training:
                seen, now = ("train", "eval") if training else ("eval", "train")
                raise StaleLinearizationError(
                    f"the model{f' at {name!r}' if name else ''} was in {seen} mode when it was linearized and is in "
                    f"{now} mode now; switch it back, linearize again, or use copy=True"
                )
