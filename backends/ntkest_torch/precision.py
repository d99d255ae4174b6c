"""The coarsest rounding that a model can meet on its way."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def epsilon_of(tensors: Iterable[torch.Tensor], reduced: Iterable[torch.dtype]) -> float:
    """Largest machine epsilon among floating `tensors`, `reduced` autocast dtypes, and TF32-like float32 products."""
    epsilon = max(torch.finfo(dtype).eps for dtype in [torch.float64, *reduced])
    for tensor in tensors:
        if tensor.is_floating_point():
            epsilon = max(epsilon, torch.finfo(tensor.dtype).eps)
            if tensor.dtype == torch.float32:
                epsilon = max(epsilon, _float32(tensor.device.type))
    return epsilon


def _float32(device_type: str) -> float:
    """What products of float32 numbers are rounded to under the present settings."""
    setting = torch.get_float32_matmul_precision()
    if setting == "medium":
        return torch.finfo(torch.bfloat16).eps
    if setting == "high" or (device_type == "cuda" and torch.backends.cudnn.allow_tf32):
        return 2.0**-10  # TF32 keeps ten bits of the fraction; cuDNN convolutions use it by default
    return torch.finfo(torch.float32).eps
