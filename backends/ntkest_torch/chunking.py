"""How many probes go through the model together: rules, not stopwatches, so that results repeat."""

from __future__ import annotations

import torch

CPU_REVERSE = 2**20
"""Numbers (of the larger side of J) in a chunk of VJPs on a CPU. Dense nets run fastest one by one when one
gradient fills the cache; small nets and recurrent nets, whose time goes into calls, gain up to 5× in chunks."""

CPU_FORWARD = 2**23
"""The same for JVPs, which share the primal pass within a chunk and so gain up to larger sizes."""

ACCELERATOR = 2**28
"""The same on accelerators, where a chunk should fill the device: 1 GiB in float32, and intermediates besides."""

_SMALLEST_FORWARD, _LARGEST_CPU = 4, 32


def chunk_size(mode: str, count: int, widest: int, device: torch.device, convolves: bool) -> int:
    """Probes in a chunk of `mode` for a Jacobian whose larger side has `widest` numbers.

    With a convolution on a CPU it is one: batching over probes turns it into a grouped convolution, which is slow.
    """
    if device.type != "cpu":
        return max(1, min(count, ACCELERATOR // widest))
    if convolves:
        return 1
    if mode == "vjp":
        return max(1, min(count, _LARGEST_CPU, CPU_REVERSE // widest))
    return max(1, min(count, _LARGEST_CPU, max(_SMALLEST_FORWARD, CPU_FORWARD // widest)))
