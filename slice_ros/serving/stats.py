# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the server has measured: counters since start, and the latest ends and steps.

The loop thread writes and any thread reads, under the lock of the shared state. Times are seconds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
import math
from typing import NamedTuple

from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State

_ENDS_KEPT = 1000   # requests a class remembers at most, however long the window
_STEPS_KEPT = 2000  # the same for steps
# Refusals of what a caller sent: no measure of how well its class is served.
_OF_ITS_CALLER = (ErrorCode.INVALID_REQUEST, ErrorCode.PROMPT_TOO_LONG, ErrorCode.SESSION_BUSY)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the nearest-rank quantile at `share` (0..1) of the values that are not NaN."""
    ordered = sorted(v for v in values if not math.isnan(v))
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class ClassStats:
    """One class: counters since start, and the reports of the latest ends.

    What was received has finished, was cancelled, failed or was rejected, or is live.
    """

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
            return  # its caller ended it: no measure of how well it was served
        if request.error not in _OF_ITS_CALLER:
            self.ends.append((request.ended_at, report))


class StepRecord(NamedTuple):
    """One forward pass."""

    at: float         # when it was computed
    plan: float       # duration of the plan
    engine: float     # the forward pass, with the time yielded before it
    deliver: float    # queueing its tokens for delivery
    predicted: float  # duration of the pass by the latency model
    tokens: int       # tokens it sampled


@dataclass(slots=True)
class LoopStats:
    """The loop: counters since start, and the latest steps."""

    steps: int = 0
    tokens: int = 0
    engine_failures: int = 0
    gate_shut: int = 0   # times the pacing gate fell shut before live requests
    drafted: int = 0     # guesses that requests fed which have ended
    right: int = 0       # of these
    recent: deque = field(default_factory=lambda: deque(maxlen=_STEPS_KEPT))

    def copy(self) -> 'LoopStats':
        """Return a copy that no longer changes."""
        return replace(self, recent=self.recent.copy())

    def end(self, request: Request) -> None:
        """Count the guesses of a request that has ended."""
        self.drafted += request.drafted
        self.right += request.right

    def step(self, record: StepRecord) -> None:
        """Count a forward pass."""
        self.steps += 1
        self.tokens += record.tokens
        self.recent.append(record)
