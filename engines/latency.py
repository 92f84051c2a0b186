"""How long calls take, told so that it holds on a shared machine: side by side, with the spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one call.

    Attributes:
        samples: seconds per call, in the order they were taken; at least two.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.samples)

    @property
    def iqr(self) -> float:
        """Distance between the quartiles in seconds."""
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return high - low


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 5,
    repeats: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time calls in turns, so that what disturbs one disturbs all.

    Args:
        calls: by name; each must be finished when it returns (as `Engine.run` is).
        warmup: untimed rounds first.
        repeats: timed rounds, at least 2.
        clock: gives seconds.

    Raises:
        ValueError: `repeats` below 2.
    """
    if repeats < 2:
        raise ValueError(f"repeats: expected at least 2, got {repeats}")
    for _ in range(warmup):
        for call in calls.values():
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = clock()
            call()
            samples[name].append(clock() - began)
    return {name: Latency(tuple(times)) for name, times in samples.items()}
