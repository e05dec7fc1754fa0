# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Ends the requests of callers that are gone: nobody waits for what is computed for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
import time
from typing import Protocol

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.subscription import Subscription
from slice_ros.ros.callers.caller_ids import client_of, LEASE, LEASE_S, lease_topic
from slice_ros.ros.compat import (
    count_clients, SubscriptionEventCallbacks, UnsupportedEventTypeError)
from std_msgs.msg import Empty

CHECK_S = 0.5          # seconds between two checks
FIRST_S = LEASE_S + 1  # seconds for the first sign of a client; a live one gives it in its lease
IDLE_S = 60.0          # seconds without a request after which a client is watched no more
MOST_NEW = 4           # clients that one check begins to watch: each takes about a millisecond


class LiveCall(Protocol):
    """What is read of a live request."""

    id: str
    slo_class: str
    door: str   # action, service or topic: how it came in


@dataclass(eq=False, slots=True)
class _Client:
    """A client of `slice_ros.client` that is watched."""

    since: float                # when it was first watched
    used: float                 # when it last had a live request
    seen: bool = False          # whether its lease has ever been there
    subscription: Subscription | None = None


class CallerWatch:
    """Cancels requests without a caller.

    Those of `slice_ros.client` end within 5 s of the end of their process: each client has a
    publisher with a lease on a topic of its own. Of other callers the graph tells whether anybody
    receives answers of their kind; after `unattended_s()` without, their requests end.
    `live` returns the live calls, `cancel` ends one, by its id, and gets the reason.
    """

    def __init__(self, node: Node, unattended_s: Callable[[], float], group: CallbackGroup,
                 live: Callable[[], Iterable[LiveCall]],
                 cancel: Callable[[str, str], object]) -> None:
        self._node, self._unattended_s, self._group = node, unattended_s, group
        self._live, self._cancel = live, cancel
        self._clients: dict[str, _Client] = {}
        self._unattended: dict[str, float] = {}   # request id -> since when
        node.create_timer(CHECK_S, self._check, callback_group=group,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _check(self) -> None:
        now, others = time.monotonic(), []
        clients: set[str] = set()
        for call in self._live():
            client = client_of(call.id)
            if client is None:
                others.append(call)
            else:
                clients.add(client)
        self._check_clients(clients, now)
        self._check_others(others, now)

    # -- clients of the library ----------------------------------------------------------------

    def _check_clients(self, with_requests: set[str], now: float) -> None:
        for name in [n for n in with_requests if n not in self._clients][:MOST_NEW]:
            self._watch(name, now)
        for name, client in list(self._clients.items()):
            if name in with_requests:
                client.used = now
            if not client.seen and now - client.since > FIRST_S:
                self._gone(name)
            elif now - client.used > IDLE_S:
                self._forget(name)

    def _watch(self, name: str, now: float) -> None:
        client = self._clients[name] = _Client(now, now)

        def changed(present: int) -> None:
            if present:
                client.seen = True
            elif self._clients.get(name) is client:
                self._gone(name)
        try:
            client.subscription = self._subscribe(
                name, liveliness=lambda status: changed(status.alive_count))
        except UnsupportedEventTypeError:   # a middleware without leases
            client.subscription = self._subscribe(
                name, matched=lambda status: changed(status.current_count))

    def _subscribe(self, name: str, **events) -> Subscription:
        return self._node.create_subscription(
            Empty, lease_topic('~', name), lambda _: None, LEASE, raw=True,
            callback_group=self._group, event_callbacks=SubscriptionEventCallbacks(
                use_default_callbacks=False, **events))

    def _gone(self, name: str) -> None:
        """End the requests of a client whose process has ended."""
        self._forget(name)
        for call in list(self._live()):
            if client_of(call.id) == name:
                self._end(call, 'the process of its client has ended')

    def _forget(self, name: str) -> None:
        client = self._clients.pop(name)
        if client.subscription is not None:
            self._node.destroy_subscription(client.subscription)

    # -- other callers -------------------------------------------------------------------------

    def _check_others(self, calls: list[LiveCall], now: float) -> None:
        limit = self._unattended_s()
        receivers: dict[tuple[str, str], int] = {}
        since = {}
        for call in calls if limit else ():
            kind = call.door, call.slo_class
            if kind not in receivers:
                receivers[kind] = self._receivers(*kind)
            if not receivers[kind]:
                since[call.id] = self._unattended.get(call.id, now)
                if now - since[call.id] > limit:
                    self._end(call, f'nobody has been there to receive it for {limit:g} s '
                              '(limits.unattended_s)')
        self._unattended = since

    def _receivers(self, door: str, slo_class: str) -> int:
        """Return how many may receive the answer to a request that came in by `door`."""
        node = self._node
        found = sum(node.count_subscribers(f'~/{slo_class}/{what}')
                    for what in ('tokens', 'sentences'))
        if door == 'action':
            found += node.count_subscribers('~/generate/_action/feedback')
            found += count_clients(node, '~/generate/_action/get_result')
        elif door == 'service':
            found += count_clients(node, '~/generate_text')
        return found

    def _end(self, call: LiveCall, why: str) -> None:
        if self._cancel(call.id, why):
            self._node.get_logger().info(f'request {call.id} is ended: {why}',
                                         throttle_duration_sec=1.0)
