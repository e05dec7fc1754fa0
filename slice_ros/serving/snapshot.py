# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One immutable picture of the server: load, queue, and how each class fares. Times in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from slice_ros.request import Request, State
from slice_ros.scheduling.contract import capacity_ratio
from slice_ros.serving.rate_control import GateWatch
from slice_ros.serving.shared_state import SharedState
from slice_ros.serving.stats import ClassStats, LoopStats, percentile
from slice_ros.slo import SloClass, SloReport

if TYPE_CHECKING:
    from slice_ros.serving.planning import Planner


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """A class at one instant; the figures cover what ended within the window, NaN of nothing."""

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
    delivery: float             # share of the busy time spent queueing tokens for delivery
    prediction_error: float     # mean |measured - predicted| / predicted
    step: tuple[float, float]   # p50, p99
    plan: tuple[float, float]
    tokens_per_s: float
    steps: int
    tokens: int
    drafted: int                # guesses that requests fed which have ended
    right: int                  # of these
    engine_failures: int
    policy_failures: int
    rate_control: str
    gate_open: bool             # true while nothing lives
    gate_age: float             # since it was last opened; NaN while nothing lives
    gate_shut: int              # times it fell shut before live requests
    gated: int                  # live requests whose next token is not due yet
    queued: int
    slots_used: int
    kv_tokens_used: int
    sessions: int               # conversations kept
    draining: bool
    requests: tuple[Request, ...]           # live, in order of arrival
    classes: dict[str, ClassSnapshot]


def take_snapshot(shared: SharedState, planner: 'Planner', gate: GateWatch, sessions: int,
                  now: float, started: float) -> Snapshot:
    """Return what a server that was made at `started` does `now`, with its count of sessions."""
    with shared.changed:  # copied here, summarised outside: the loop waits for this lock
        config = shared.config
        live = tuple(job.request for job in shared.jobs.values())
        stats = {name: shared.stats_of(name).copy() for name in shared.class_names()}
        loop_stats = shared.loop_stats.copy()
        draining, queued = shared.stop_at < math.inf, len(shared.waiting())
    slos = {slo.name: slo for slo in config.classes}
    classes = {
        name: class_snapshot(slos.get(name) or SloClass(name), stats[name],
                             [r for r in live if r.slo.name == name], now, config.window)
        for name in stats}
    age = gate.age(now) if live else math.inf
    return Snapshot(
        at=now, policy=config.policy, window=config.window, requests=live, classes=classes,
        capacity_ratio=capacity_ratio(planner.policy), rate_control=gate.mode,
        gate_open=not (live and gate.shut), gate_age=age if age < math.inf else math.nan,
        gated=sum(r.gated for r in live),
        queued=queued, slots_used=sum(r.cached > 0 for r in live),
        kv_tokens_used=sum(r.cached for r in live), sessions=sessions,
        policy_failures=planner.failures, draining=draining,
        **loop_figures(loop_stats, now, config.window, started))


def class_snapshot(slo: SloClass, stats: ClassStats, live: Sequence[Request], now: float,
                   window: float) -> ClassSnapshot:
    """Summarise a class; `live` are its requests that have not ended."""
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
        span = max(min(span, now - recent[0].at), 1e-9)  # older steps are dropped already
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
        'tokens': stats.tokens, 'drafted': stats.drafted, 'right': stats.right,
        'engine_failures': stats.engine_failures, 'gate_shut': stats.gate_shut}
