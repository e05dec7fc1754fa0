# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The policy in use, replaced when it fails: no fault of a policy ends the serving loop."""

from collections.abc import Callable, Sequence
import logging

from slice_ros.request import Request
from slice_ros.scheduling.contract import (
    check_capacity, check_step, FAULTS, plan_step, PolicyError)
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step

log = logging.getLogger('slice_ros.serving')


class Planner:
    """Asks the policy that `make_policy` returns; `failures` counts its faults."""

    def __init__(self, make_policy: Callable[[], Policy]) -> None:
        self._make = make_policy
        self.policy = make_policy()
        self.failures = 0

    def reconfigure(self) -> None:
        """Replace the policy by the one that is configured now, which keeps what is learnt."""
        earlier = self.policy
        try:
            self.policy = self._make()
            self.policy.inherit(earlier)
        except FAULTS:
            self._count('could not take over; it goes on with what it has')

    def replace(self) -> None:
        """Replace the policy by a new one of its kind, or keep it if none can be made."""
        try:
            self.policy = self.policy.fresh()
        except FAULTS:
            self._count('cannot be made anew; it stays')

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Return the next step, checked against the contract of policies.

        A policy that raises or breaks the contract is replaced and asked once more. Raises
        `PolicyError` when the new one fails as well.
        """
        try:
            return self._checked(now, requests, latency)
        except PolicyError:  # its state may be damaged: a new one gets one chance
            self._count('failed; it is replaced by a new one')
            self.replace()
            return self._checked(now, requests, latency)

    def finished(self, request: Request) -> None:
        """Have the policy learn from a request that has ended."""
        try:
            self.policy.finished(request)
        except FAULTS:
            self._count('failed; it is replaced by a new one')
            self.replace()

    def on_idle(self) -> None:
        """Notify the policy that no step follows the last one at once."""
        try:
            self.policy.on_idle()
        except FAULTS:
            self._count('failed; it is replaced by a new one')
            self.replace()

    def _checked(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        step = plan_step(self.policy, now, requests, latency)
        check_step(self.policy, step, requests)
        check_capacity(self.policy, step, requests)
        return step

    def _count(self, what: str) -> None:
        """Log and count a fault of the policy; called where it is handled."""
        log.exception('policy %s %s', self.policy.name, what)
        self.failures += 1
