"""How many probes go through the model together: rules, not stopwatches, so that results repeat."""

from __future__ import annotations

import torch

CPU_GRADIENTS = 3 * 2**20
"""Numbers in a chunk of gradients on a CPU. Small and recurrent nets spend their time in calls and gain 2 to 5×
from chunks, until a chunk of gradients leaves the cache; large dense nets run as fast one by one."""

CPU_TANGENTS = 6 * 2**20
"""Numbers in a chunk of tangents on a CPU. A chunk shares the primal pass and the overhead of forward mode."""

CPU_IMAGES = 2**21
"""Outputs in a chunk of JVPs on a CPU."""

CPU_MOST = 16

ACCELERATOR = 2**28
"""Numbers in a chunk on accelerators, which a chunk should fill: 1 GiB in float32, and intermediates besides."""


def chunk_size(mode: str, count: int, outputs: int, params: int, device: torch.device, convolves: bool) -> int:
    """Probes in a chunk of `mode` ("jvp" or "vjp") for a Jacobian of shape (outputs, params).

    With a convolution on a CPU it is one: batching over probes turns it into a grouped convolution, which is slow.
    The chunks of `count` probes come out about equally large.
    """
    if device.type != "cpu":
        most = ACCELERATOR // max(outputs, params)
    elif convolves:
        most = 1
    elif mode == "vjp":
        most = min(CPU_MOST, CPU_GRADIENTS // params)
    else:
        most = min(CPU_MOST, CPU_IMAGES // outputs, CPU_TANGENTS // params)
    chunks = -(-count // max(1, most))
    return max(1, -(-count // max(1, chunks)))


CPU_EXAMPLES = 2**22
"""Numbers in a chunk of gradients of single examples on a CPU, in factors where they are; 2**20 costs up to 1.6×."""


def example_chunk(numbers: int, device: torch.device) -> int:
    """Pairs of a probe and an example whose gradients, of so many `numbers` each, are made together."""
    return max(1, (CPU_EXAMPLES if device.type == "cpu" else ACCELERATOR) // max(1, numbers))
