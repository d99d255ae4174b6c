"""The time of pNTK and of the full NTK of residual networks, by depth.

``python -m benchmarks depth`` writes docs/benchmarks/depth.json, the figure depth.svg and the page depth.md.

Residual networks for 3 × 32 × 32 images as in He et al., section 4.2: a convolution, three stages of widths 16, 32 and
64 with m blocks of two convolutions each, mean over pixels, linear head: 6 m + 2 layers. Batch norm is in eval mode.

References: Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel",
ICML 2023, figure 1. He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ntkest

from . import depth_page
from .contest_worker import digits
from .gemm import FLOPS, torch_product
from .passes import machine
from .timing import interleave
from .worker import versions

DEPTHS = (8, 14, 20, 26, 32)
WIDTHS = (16, 32, 64)
OUTPUTS = 10


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the JSON file, the figure and the page."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks depth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS), help="6 m + 2 (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=16, help="N (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=32, help="of a side of the images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each, in turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for everything")
    parser.add_argument("--folder", type=Path, default=Path("docs/benchmarks"), help="where to write")
    options = parser.parse_args(given)
    if min(options.examples, options.rounds, options.threads) < 1 or options.pixels < 4:
        parser.error("--examples, --rounds and --threads take positive numbers, --pixels one of 4 or more")
    if any(depth < 8 or depth % 6 != 2 for depth in options.depths):
        parser.error("--depths takes 8, 14, 20 and so on")
    torch.set_num_threads(options.threads)
    found = {
        "benchmark": "depth",
        "command": shlex.join(["python", "-m", "benchmarks", "depth", *given]),
        "machine": machine(),
        "versions": versions("torch"),
        "threads": options.threads,
        "examples": options.examples,
        "pixels": options.pixels,
        "rounds": options.rounds,
        "gemm_flops": FLOPS,
        "cells": [measured(depth, options) for depth in sorted(set(options.depths))],
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "depth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    depth_page.draw(found, options.folder / "depth.svg")
    (options.folder / "depth.md").write_text(depth_page.markdown(found), encoding="utf-8")
    print(f"wrote {options.folder / 'depth.md'}")


def measured(depth: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both kernels of one network, and how far apart they are."""
    print(f"depth {depth} ...", file=sys.stderr, flush=True)
    torch.manual_seed(0)
    model = ResNet((depth - 2) // 6).eval()
    J = ntkest.linearize(model, torch.randn(options.examples, 3, options.pixels, options.pixels))
    full, small = ntkest.ntk(J), ntkest.pntk(J)
    stand_in = torch.kron(small, torch.eye(OUTPUTS))
    calls = {"full": lambda _: ntkest.ntk(J), "pntk": lambda _: ntkest.pntk(J), "gemm": torch_product()}
    samples = interleave(calls, options.rounds)
    return {
        "depth": depth,
        "parameters": sum(p.numel() for p in model.parameters()),
        "error": digits(float(torch.linalg.norm(stand_in - full) / torch.linalg.norm(full))),
        "samples": {name: [digits(s) for s in seconds] for name, seconds in samples.items()},
    }


class Block(nn.Module):
    """Two convolutions with batch norm, beside a shortcut."""

    def __init__(self, p: int, q: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(p, q, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(q, q, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(q), nn.BatchNorm2d(q)])
        self.shortcut = nn.Identity() if p == q else nn.Conv2d(p, q, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, p, h, w) to (N, q, h / stride, w / stride)."""
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of `blocks` blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]))
        stages, p = [], WIDTHS[0]
        for stage, q in enumerate(WIDTHS):
            for block in range(blocks):
                stages.append(Block(p, q, 2 if stage and not block else 1))
                p = q
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(p, OUTPUTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to (N, 10)."""
        return self.head(self.stages(torch.relu(self.stem(x))).mean((2, 3)))
