# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the server has measured: counters since start and figures over a sliding window.

Written by the loop thread and read by any other under the server's lock. Times are seconds.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
import math
from typing import NamedTuple

from slice_ros.request import Request, State
from slice_ros.slo import SloClass, SloReport

_ENDS_KEPT = 1000   # requests a class remembers at most, however long the window
_STEPS_KEPT = 2000  # the same for steps


def percentile(values: Iterable[float], share: float) -> float:
    """Return the nearest-rank quantile at `share` (0..1) of the values that are not NaN."""
    ordered = sorted(v for v in values if not math.isnan(v))
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class ClassStats:
    """One class: counters since start, and the reports of requests that ended lately."""

    received: int = 0
    finished: int = 0
    attained: int = 0
    cancelled: int = 0
    failed: int = 0
    rejected: int = 0
    ends: deque = field(default_factory=lambda: deque(maxlen=_ENDS_KEPT))  # (time, SloReport)

    def copy(self) -> 'ClassStats':
        """Return a copy that no longer changes."""
        return replace(self, ends=self.ends.copy())

    def end(self, request: Request) -> None:
        """Count a request that has just ended."""
        report = request.report()
        self.attained += report.attained
        if request.state is State.FINISHED:
            self.finished += 1
        elif request.state is State.FAILED:
            self.failed += 1
        elif request.state is State.REJECTED:
            self.rejected += 1
        else:
            self.cancelled += 1
            return  # its caller lost interest: that says nothing about how well it was served
        self.ends.append((request.ended_at, report))


class StepRecord(NamedTuple):
    """One forward pass."""

    at: float         # when it was delivered
    plan: float       # planning it
    engine: float     # the pass itself, and the rest before it, which listeners were left
    deliver: float    # handing its tokens out
    predicted: float  # what the latency model said the pass would take
    tokens: int       # tokens it sampled


@dataclass(slots=True)
class LoopStats:
    """The loop: counters since start, and the steps of late."""

    steps: int = 0
    tokens: int = 0
    engine_failures: int = 0
    gate_shut: int = 0   # times the pacing gate fell shut before live requests
    recent: deque = field(default_factory=lambda: deque(maxlen=_STEPS_KEPT))

    def copy(self) -> 'LoopStats':
        """Return a copy that no longer changes."""
        return replace(self, recent=self.recent.copy())

    def step(self, record: StepRecord) -> None:
        """Count a forward pass."""
        self.steps += 1
        self.tokens += record.tokens
        self.recent.append(record)


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """A class at one instant; the figures cover what ended within the window, NaN for nothing."""

    slo: SloClass
    received: int
    finished: int
    attained: int
    cancelled: int
    failed: int
    rejected: int
    live: int
    waiting: int
    window: float
    window_requests: int
    attainment: float
    ttft: tuple[float, float]        # p50, p99
    tpot: tuple[float, float]
    completion: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The server at one instant."""

    at: float
    policy: str
    capacity_ratio: float       # NaN where the policy has none
    window: float
    load: float                 # share of the window the engine was busy
    overhead: float             # share of the busy time outside the model: plan and deliver
    delivery: float             # of that, the share the loop spent handing tokens over
    prediction_error: float     # mean |measured - predicted| / predicted
    step: tuple[float, float]   # p50, p99
    plan: tuple[float, float]
    tokens_per_s: float
    steps: int
    tokens: int
    engine_failures: int
    policy_failures: int
    rate_control: str
    gate_open: bool             # true while nothing lives
    gate_age: float             # since it was last opened; NaN while nothing lives
    gate_shut: int              # times it fell shut before live requests
    gated: int                  # live requests whose next token is kept back
    queued: int
    slots_used: int
    kv_tokens_used: int
    sessions: int               # conversations kept
    draining: bool
    requests: tuple[Request, ...]           # live, in order of arrival
    classes: dict[str, ClassSnapshot]


def class_snapshot(slo: SloClass, stats: ClassStats, live: Sequence[Request], now: float,
                   window: float) -> ClassSnapshot:
    """Sum a class up; `live` are its requests that have not ended."""
    reports: list[SloReport] = [r for at, r in stats.ends if at >= now - window]

    def spread(values: list[float]) -> tuple[float, float]:
        return percentile(values, 0.5), percentile(values, 0.99)

    return ClassSnapshot(
        slo=slo, received=stats.received, finished=stats.finished, attained=stats.attained,
        cancelled=stats.cancelled, failed=stats.failed, rejected=stats.rejected, live=len(live),
        waiting=sum(r.state is State.WAITING for r in live), window=window,
        window_requests=len(reports),
        attainment=sum(r.attained for r in reports) / len(reports) if reports else math.nan,
        ttft=spread([r.ttft for r in reports]), tpot=spread([r.tpot for r in reports]),
        completion=spread([r.completion for r in reports]))


def loop_figures(stats: LoopStats, now: float, window: float, started: float) -> dict[str, object]:
    """Return the fields of `Snapshot` that come from the steps of the window."""
    recent = [r for r in stats.recent if r.at >= now - window]
    span = max(min(window, now - started), 1e-9)
    if len(stats.recent) == stats.recent.maxlen and recent:
        span = max(min(span, now - recent[0].at), 1e-9)  # older steps are forgotten already
    busy = sum(r.engine for r in recent)
    deliver = sum(r.deliver for r in recent)
    extra = sum(r.plan for r in recent) + deliver
    errors = [abs(r.engine - r.predicted) / r.predicted for r in recent if r.predicted > 0]
    return {
        'load': min(1.0, busy / span), 'overhead': extra / (busy + extra) if recent else 0.0,
        'delivery': deliver / (busy + extra) if recent else 0.0,
        'prediction_error': sum(errors) / len(errors) if errors else math.nan,
        'step': tuple(percentile([r.engine for r in recent], p) for p in (0.5, 0.99)),
        'plan': tuple(percentile([r.plan for r in recent], p) for p in (0.5, 0.99)),
        'tokens_per_s': sum(r.tokens for r in recent) / span, 'steps': stats.steps,
        'tokens': stats.tokens, 'engine_failures': stats.engine_failures,
        'gate_shut': stats.gate_shut}
