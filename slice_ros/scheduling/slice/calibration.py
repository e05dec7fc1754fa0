# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The predicted seconds of each step against the measured ones: the capacity ratio."""

from collections.abc import Iterable, Mapping

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step
from slice_ros.scheduling.slice.demand import Demand

GAIN = 0.02              # weight of the newest step in the smoothed figures
OUTLIER = 4.0            # times the smoothed slowness; a longer step counts as this long
DEVIATIONS = 0.5         # mean deviations that the ratio leaves as head-room


class Calibration:
    """How much longer steps take than predicted, and so how much of the time may be planned.

    `ratio` is the share of the time that the selection may fill, ``1 / (s + d / 2)`` and at most
    1, with s the smoothed ratio of measured to predicted time and d its mean deviation. It stays
    1 if it is not `tuned`.
    """

    def __init__(self, tuned: bool) -> None:
        self.ratio = 1.0
        self._tuned = tuned
        self._slowness, self._deviation = 1.0, 0.0
        self._predicted = self._begun_at = 0.0   # of the last step; 0 seconds: there is none

    def predict(self, now: float, step: Step, live: Iterable[Request],
                demands: Mapping[Request, Demand], latency: LatencyModel) -> None:
        """Predict the seconds of a step that begins now."""
        seconds = sum([demands[r].token_cost for r in step.decode])
        if step.decode and any(r.gated for r in live):  # gated requests keep the batch small
            context = sum(r.cached for r in step.decode)
            seconds = max(seconds, latency.decode(len(step.decode), context))
        for chunk in step.prefill:
            seconds += latency.prefill(chunk.tokens, chunk.request.cached)
        self._predicted, self._begun_at = seconds, now

    def clear(self) -> None:
        """Forget the last step: the time from now on is not its."""
        self._predicted = 0.0

    def observe(self, now: float) -> float | None:
        """Learn from the seconds that the last step took and return them; None without a step."""
        if not self._predicted:
            return None
        elapsed = now - self._begun_at
        # A single hiccup is no trend: what a step may add is bounded.
        error = min(elapsed / self._predicted, OUTLIER * self._slowness) - self._slowness
        self._slowness += GAIN * error
        self._deviation += GAIN * (abs(error) - self._deviation)
        if self._tuned:
            self.ratio = 1 / max(1.0, self._slowness + DEVIATIONS * self._deviation)
        return elapsed

    def inherit(self, earlier: 'Calibration') -> None:
        """Take over what `earlier` has learnt of how long steps take."""
        self._slowness, self._deviation = earlier._slowness, earlier._deviation
        self.ratio = earlier.ratio
