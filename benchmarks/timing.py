"""Stopwatch work: calibrated samples, interleaved rounds, and the race that picks the best contestant."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

SAMPLE = 0.1
"""Seconds that a sample should last at least: shorter calls are repeated within one."""

HOPELESS = 2.0
"""A contestant that took this many times the best in the first round is not timed again."""


def seconds(call: Callable[[int], Any], repeats: int, seed: int) -> float:
    """Mean seconds of `repeats` calls, each with a seed of its own."""
    start = time.perf_counter()
    for number in range(repeats):
        call(seed + number)
    return (time.perf_counter() - start) / repeats


def repeats_for(estimate: float) -> int:
    """Calls in a sample, for calls that take `estimate` seconds."""
    return max(1, math.ceil(SAMPLE / max(estimate, 1e-9)))


def race(contestants: Mapping[str, Callable[[int], Any]], rounds: int) -> dict[str, Any]:
    """Time all contestants round by round; the winner has the least median.

    Returns a dict with the ``winner``, the ``seconds`` of each (one number a round), and the ``failed`` ones
    with the reason.
    """
    times: dict[str, list[float]] = {}
    failed = {}
    for name, call in contestants.items():
        try:
            call(0)  # compiles
            times[name] = [seconds(call, 1, 1)]
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    best = min(first for first, *_ in times.values())
    alive = [name for name, (first, *_) in times.items() if first < HOPELESS * best]
    for number in range(rounds if len(alive) > 1 else 0):
        for name in alive:
            times[name].append(seconds(contestants[name], repeats_for(times[name][0]), 100 * (number + 1)))
    winner = min(alive, key=lambda name: statistics.median(times[name][1:] or times[name]))
    return {"winner": winner, "seconds": times, "failed": failed}


def interleave(calls: Mapping[str, Callable[[int], Any]], pairs: int) -> dict[str, list[float]]:
    """Samples of every call, taken in turns, the order reversed from one turn to the next."""
    repeats = {}
    for name, call in calls.items():
        call(0)
        repeats[name] = repeats_for(seconds(call, 1, 1))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(pairs):
        gc.collect()
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            samples[name].append(seconds(calls[name], repeats[name], 1000 * (turn + 1)))
    return samples


def spread(samples: list[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    return {
        "median": statistics.median(samples),
        "quartile_1": low,
        "quartile_3": high,
        "min": min(samples),
        "max": max(samples),
    }
