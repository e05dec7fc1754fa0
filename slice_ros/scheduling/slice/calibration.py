# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What `slice` promises that a step takes, and how well that is kept: the capacity ratio."""

from collections.abc import Iterable, Mapping

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step
from slice_ros.scheduling.slice.demand import Demand


class Promises:
    """`ratio` is the share of the time that may be promised; where it is not `tuned`, it is 1."""

    def __init__(self, tuned: bool) -> None:
        self.ratio = 1.0
        self._tuned = tuned
        self._slowness, self._unsteady = 1.0, 0.0
        self._seconds = self._at = 0.0   # of the last one; no seconds: there is none

    def make(self, now: float, step: Step, live: Iterable[Request],
             demands: Mapping[Request, Demand], latency: LatencyModel) -> None:
        """Promise what a step costs that begins now."""
        seconds = sum([demands[r].unit for r in step.decode])
        if step.decode and any(r.gated for r in live):  # the batch is small for want of company
            context = sum(r.cached for r in step.decode)
            seconds = max(seconds, latency.decode(len(step.decode), context))
        for chunk in step.prefill:
            seconds += latency.prefill(chunk.tokens, chunk.request.cached)
        self._seconds, self._at = seconds, now

    def forget(self) -> None:
        """Expect nothing: the time that passes from now on is no step's."""
        self._seconds = 0.0

    def settle(self, now: float) -> float | None:
        """Learn from the seconds that the last step took and return them; None: there was none."""
        if not self._seconds:
            return None
        elapsed = now - self._at
        # A single hiccup is no trend: what a step may add is bounded.
        error = min(elapsed / self._seconds, 4 * self._slowness) - self._slowness
        self._slowness += 0.02 * error
        self._unsteady += 0.02 * (abs(error) - self._unsteady)
        if self._tuned:
            self.ratio = 1 / max(1.0, self._slowness + 0.5 * self._unsteady)
        return elapsed

    def inherit(self, earlier: 'Promises') -> None:
        """Keep what another has learnt of how long steps really take."""
        self._slowness, self._unsteady = earlier._slowness, earlier._unsteady
        self.ratio = earlier.ratio
