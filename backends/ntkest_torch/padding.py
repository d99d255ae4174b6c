"""Embeddings whose forward derivatives leave out the row for padding, as their gradients do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class PaddingHeld(TorchFunctionMode):
    """While it is entered, what is looked up of a row for padding has no derivative.

    Torch drops it from gradients only, so that forward and reverse mode would be of two different functions.
    """

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call the function, and detach what embeddings give for padding."""
        found = func(*args, **(kwargs or {}))
        if func is not nn.functional.embedding:
            return found
        padding = args[2] if len(args) > 2 else (kwargs or {}).get("padding_idx")
        if padding is None:
            return found
        indices, weight = args[:2]
        kept = indices != padding % weight.shape[0]
        return torch.where(kept.unsqueeze(-1), found, found.detach())


def pads(module: nn.Module) -> bool:
    """Whether a module has an embedding with a row for padding."""
    return any(isinstance(part, nn.Embedding) and part.padding_idx is not None for part in module.modules())
