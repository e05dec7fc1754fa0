# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The policy in use, made anew when it fails: no fault of a policy ends the serving loop."""

from collections.abc import Callable, Sequence
import logging

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step

log = logging.getLogger('slice_ros.serving')


class Planner:
    """Asks the policy that `make_policy` returns; `failures` counts how often it raised."""

    def __init__(self, make_policy: Callable[[], Policy]) -> None:
        self._make = make_policy
        self.policy = make_policy()
        self.failures = 0

    def renew(self, inherit: bool = False) -> None:
        """Make the policy anew, with what the earlier one learnt if it is to `inherit`."""
        earlier, self.policy = self.policy, self._make()
        if inherit:
            self.policy.inherit(earlier)

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Return the next step. A policy that fails twice in a row lets its error through."""
        try:
            return self.policy.plan(now, requests, latency)
        except Exception:  # its state may be spoilt: a new one gets one chance
            self._failed()
            return self.policy.plan(now, requests, latency)

    def finished(self, request: Request) -> None:
        """Have the policy learn from a request that has ended."""
        try:
            self.policy.finished(request)
        except Exception:
            self._failed()

    def on_idle(self) -> None:
        """Tell the policy that nothing follows its last step at once."""
        self.policy.on_idle()

    def _failed(self) -> None:
        log.exception('the policy failed; it is made anew')
        self.failures += 1
        self.renew()
