# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The policy in use, replaced when it fails: no fault of a policy ends the serving loop."""

from collections.abc import Callable, Sequence
import logging

from slice_ros.request import Request
from slice_ros.scheduling.contract import check_step, plan_step, PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step

log = logging.getLogger('slice_ros.serving')


class Planner:
    """Asks the policy that `make_policy` returns; `failures` counts its faults."""

    def __init__(self, make_policy: Callable[[], Policy]) -> None:
        self._make = make_policy
        self.policy = make_policy()
        self.failures = 0

    def renew(self, inherit: bool = False) -> None:
        """Replace the policy; with `inherit` the new one keeps what the earlier one has learnt."""
        earlier, self.policy = self.policy, self._make()
        if inherit:
            self.policy.inherit(earlier)

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Return the next step, checked against the contract of policies.

        A policy that raises or breaks the contract is replaced and asked once more. Raises
        `PolicyError` when the new one fails as well.
        """
        try:
            return self._checked(now, requests, latency)
        except PolicyError:  # its state may be damaged: a new one gets one chance
            self._failed()
            return self._checked(now, requests, latency)

    def finished(self, request: Request) -> None:
        """Have the policy learn from a request that has ended."""
        try:
            self.policy.finished(request)
        except Exception:
            self._failed()

    def on_idle(self) -> None:
        """Notify the policy that no step follows the last one at once."""
        try:
            self.policy.on_idle()
        except Exception:
            self._failed()

    def _checked(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        step = plan_step(self.policy, now, requests, latency)
        check_step(self.policy, step, requests)
        return step

    def _failed(self) -> None:
        log.exception('policy %s failed; it is replaced by a new one', self.policy.name)
        self.failures += 1
        self.renew()
