"""Who takes part in the benchmark of kernels, and the processes that they live in."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .passes import POOLS, ROOT

PATIENCE = 300.0
"""Seconds that an answer may take, compilation included."""

MARGIN = 1.5
"""A process that takes this many times the memory of a call, its own and its libraries' included, is refused more."""


@dataclass(frozen=True)
class Entry:
    """A contestant: the module that has it and the name in there, its framework, and the environment that it needs."""

    framework: str
    module: str
    name: str
    home: str = "own"

    @property
    def ours(self) -> bool:
        """Whether it is ntkest."""
        return self.module == "peers_ntkest_kernels"

    @property
    def checked(self) -> bool:
        """Whether what it returns is what was asked for, and not the passes that take it."""
        return not self.module.startswith("peers_passes")

    @property
    def title(self) -> str:
        """As it is shown."""
        return f"ntkest, {self.framework}" if self.ours else self.name


NT = [
    Entry("jax", "peers_neural_tangents", f"neural-tangents, {way}", "nt")
    for way in ("auto", "Jacobian contraction", "NTK-vector products", "structured derivatives")
]

KERNELS = [
    Entry("torch", "peers_ntkest_kernels", "torch"),
    Entry("torch", "peers_nngeometry", "nngeometry", "peers"),
    Entry("torch", "peers_torch_func", "torch.func, Jacobian contraction"),
    Entry("torch", "peers_torch_func", "torch.func, NTK-vector products"),
    Entry("jax", "peers_ntkest_kernels", "jax"),
    Entry("jax", "peers_jax_func", "jax, Jacobian contraction"),
    *NT,
]

TRACES = [
    Entry("torch", "peers_ntkest_kernels", "torch"),
    Entry("torch", "peers_passes_torch", "torch, a gradient a cotangent"),
    Entry("torch", "peers_passes_torch", "torch, all gradients together"),
    Entry("jax", "peers_ntkest_kernels", "jax"),
    Entry("jax", "peers_passes_jax", "jax, a gradient a cotangent"),
    Entry("jax", "peers_passes_jax", "jax, all gradients together"),
]


class GoneError(Exception):
    """The process has ended, or had to be."""


class Contestant:
    """A process with one contestant, which works when it is asked to and sleeps otherwise."""

    program = "benchmarks.kernels_worker"

    def __init__(self, entry: Entry, python: str, kind: str, file: Path, threads: int, gigabytes: float) -> None:
        self.entry = entry
        self.log = file.with_name(f"{entry.framework}-{entry.name}.log".replace("/", "-"))
        env = {**os.environ, **dict.fromkeys(POOLS, str(threads)), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
        paths = [str(ROOT), str(ROOT / "backends"), *filter(None, [os.environ.get("PYTHONPATH")])]
        words = [entry.module, entry.name, kind, str(file.resolve()), entry.framework, str(threads)]
        words.append(str(int(MARGIN * gigabytes * 1e9)))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", self.program, *words],
                cwd=ROOT,
                env={**env, "PYTHONPATH": os.pathsep.join(paths if entry.home == "own" else paths[:1])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.versions = self._answer()["versions"]

    def ask(self, what: str, *words: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises
        ------
        GoneError
        """
        try:
            self.process.stdin.write((json.dumps([what, *words]) + "\n").encode())  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError as error:
            raise GoneError("its process had ended") from error
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        out, start = self.process.stdout, time.monotonic()
        ready, _, _ = select.select([out], [], [], PATIENCE)
        if not ready:
            self.close()
            raise GoneError(f"no answer within {time.monotonic() - start:.0f} s, compilation included")
        line = out.readline()  # type: ignore[union-attr]
        if not line:
            raise GoneError(f"its process ended with status {self.process.wait()}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""
