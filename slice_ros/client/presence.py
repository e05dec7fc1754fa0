# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the slice node is present, and whether it is still the process that was asked.

The ROS graph keeps a killed process until its participant's lease expires, 20 s by default. The
node's ~/scheduler_state has a shorter lease, which the middleware renews and checks.
"""

from collections.abc import Callable

from rclpy.subscription import Subscription
from slice_ros import msg
from slice_ros.client.callbacks import Callbacks
from slice_ros.ros.compat import SubscriptionEventCallbacks, UnsupportedEventTypeError
from slice_ros.ros.qos import STATE


class Presence:
    """Counts the runs of the node at `target`: after a restart it does not know old requests.

    `runs` are the numbers of the processes that are present. `gone` is whether there was one and
    now is none. `changed` is called in a callback when either changes.
    """

    def __init__(self, callbacks: Callbacks, target: str, changed: Callable[[], None]) -> None:
        self.runs: frozenset[int] = frozenset()
        self._begun, self._changed = 0, changed
        self._node = callbacks.node
        try:
            self._subscription = self._subscribe(callbacks, target, liveliness=lambda now: (
                self._count(now.alive_count_change, now.not_alive_count_change)))
        except UnsupportedEventTypeError:  # a middleware without leases
            self._subscription = self._subscribe(callbacks, target, matched=lambda now: (
                self._count(now.current_count_change, 0)))

    @property
    def gone(self) -> bool:
        return self._begun > 0 and not self.runs

    def close(self) -> None:
        """Stop observing."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, callbacks: Callbacks, target: str, **events) -> Subscription:
        # Only the presence of the publisher matters, so the messages stay serialized.
        return self._node.create_subscription(
            msg.SchedulerState, f'{target}/scheduler_state', lambda _: None, STATE, raw=True,
            callback_group=callbacks.group, event_callbacks=SubscriptionEventCallbacks(**events))

    def _count(self, change: int, killed: int) -> None:
        """Apply how the numbers of live and of killed publishers changed."""
        ended = max(killed, -change, 0)
        begun = ended + change
        runs = sorted(self.runs) + list(range(self._begun, self._begun + begun))
        self._begun += begun
        self.runs = frozenset(runs[ended:])  # when one replaces another, the older one has ended
        self._changed()
