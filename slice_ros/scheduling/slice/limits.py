# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a step may be, how large its batch, and how many tokens a prefill chunk has."""

from collections.abc import Iterable
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, PrefillChunk
from slice_ros.slo import SloClass

CHEAP = 1.1          # times a shorter step that a longer one may take and be no slower
FIXED_SHARE = 8      # times its fixed cost that the tokens of a chunk take, at least
UNSET = 1.0          # seconds, where no objective sets a time
WAITS = 2            # steps that one may wait for: one that has just begun, and its own
PACE_SHARE = 0.7     # share of the time per token that a step may take: the rest is for prefills


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a step may be, in seconds, and how large its batch may be.

    `batch` requests fit a step, `efficient_batch` of them make it efficient, and a best-effort
    step takes `best_effort_batch`. ``times[b - 1]`` is the seconds of a decode step over b
    requests, for every b up to the largest batch of the engine. A step of `short` seconds is as
    good as the shortest. A prefill chunk takes `saved` seconds less in a step with decodes, and
    `chunk` seconds at most if its request has a lower utility than `most_utility`.
    """

    step: float
    batch: int
    efficient_batch: int
    best_effort_batch: int
    times: tuple[float, ...]
    short: float = 0.0
    saved: float = 0.0
    chunk: float = UNSET
    most_utility: float = 0.0

    def chunk_seconds(self, request: Request) -> float:
        """Return how long a prefill chunk of `request` may take, in seconds."""
        return self.chunk if request.slo.utility < self.most_utility else self.step


def limits_of(latency: LatencyModel, capacity: Capacity, classes: Iterable[SloClass]) -> Limits:
    """Return the limits of a step while requests of `classes` may arrive.

    An arrival waits for the running step, which must not cost much of the time to its first
    token. An efficient batch fits a step in any case, however strict a class is.
    """
    classes = tuple(classes)
    step = min([min(slo.ttft / WAITS, WAITS * slo.tpot) for slo in classes] + [UNSET])
    times = [latency.decode(batch) for batch in range(1, capacity.max_batch + 1)]
    costs = [seconds / batch for batch, seconds in enumerate(times, 1)]
    enough = CHEAP * min(costs)
    efficient = next(batch for batch, cost in enumerate(costs, 1) if cost <= enough)
    most = efficient
    while most < capacity.max_batch and times[most] <= step:
        most += 1
    best_effort = efficient   # the cost per request still falls
    while best_effort < most and costs[best_effort] < costs[best_effort - 1]:
        best_effort += 1
    short = max(seconds for seconds in times if seconds <= CHEAP * times[0])
    return Limits(max(step, times[efficient - 1]), most, efficient, best_effort, tuple(times),
                  short, latency.shared_ms / 1e3, PACE_SHARE * step / WAITS,
                  max([slo.utility for slo in classes], default=0.0))


@dataclass(frozen=True, slots=True)
class Moment:
    """What all parts of a plan go by; the largest prefill chunk has `most` tokens."""

    now: float
    latency: LatencyModel
    limits: Limits
    most: int

    @property
    def mixes(self) -> bool:
        """Whether a step may hold decodes and prefills: that saves time, or it is not known."""
        return self.limits.saved > 0 or self.latency.trials > 0


def largest_chunk(request: Request, at: Moment) -> PrefillChunk:
    """Return as much of the prefill as a step may hold."""
    return PrefillChunk(request, min(request.pending, at.most))


def chunk_of(request: Request, room: float, at: Moment) -> PrefillChunk:
    """Return as much of the prefill as fits `room` seconds and a step, in chunks that pay."""
    latency, limits = at.latency, at.limits
    tokens = min(request.pending, at.most)
    room = min(room, limits.chunk_seconds(request)) + limits.saved
    fixed = max(latency.prefill_base_ms - 1e3 * limits.saved, 0.0)
    least = len(limits.times)   # tokens, as many as rows: a step that the engine takes anyway
    if fixed and latency.prefill_token_ms:
        least = max(least, math.ceil(min(FIXED_SHARE * fixed / latency.prefill_token_ms, at.most)))
    while tokens > least and latency.prefill(tokens, request.cached) > room:
        tokens = max(least, tokens // 2)
    return PrefillChunk(request, tokens)
