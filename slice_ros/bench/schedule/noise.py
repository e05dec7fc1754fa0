# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How the true step times of a simulation deviate from the latency model."""

from bisect import bisect_right
from dataclasses import dataclass
import math
import random


@dataclass(frozen=True, slots=True)
class Noise:
    """Deviations of the true step times from the true latency model."""

    spread: float = 0.0          # each step takes 1 +- spread, uniformly
    burst_every: float = 0.0     # mean seconds between bursts (0 = none)
    burst_seconds: float = 0.5   # seconds that a burst lasts
    burst_factor: float = 2.0    # factor on step times in a burst
    # Measured (time, factor), in order of time: from then on steps take `factor` times as long.
    slowness: tuple[tuple[float, float], ...] = ()


class Disturbance:
    """Applies `Noise` to true step times."""

    def __init__(self, noise: Noise, seed: int) -> None:
        self.noise = noise
        self.draw = random.Random(seed)
        self.times = [time for time, _ in noise.slowness]
        self.burst_start = self._gap()
        self.burst_end = self.burst_start + noise.burst_seconds

    def __call__(self, now: float, seconds: float) -> float:
        if self.noise.spread:
            seconds *= 1 + self.draw.uniform(-self.noise.spread, self.noise.spread)
        if self.noise.slowness:
            seconds *= self.noise.slowness[max(0, bisect_right(self.times, now) - 1)][1]
        while now >= self.burst_end:
            self.burst_start = self.burst_end + self._gap()
            self.burst_end = self.burst_start + self.noise.burst_seconds
        return seconds * self.noise.burst_factor if now >= self.burst_start else seconds

    def _gap(self) -> float:
        every = self.noise.burst_every
        return self.draw.expovariate(1 / every) if every else math.inf
