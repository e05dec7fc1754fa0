# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the slice node is there, and whether it is still the one that was asked.

The graph forgets a process that was killed after its participant's lease only, 20 s by default.
The node's ~/scheduler_state has a lease of its own, which the middleware keeps up and watches.
"""

from collections.abc import Callable

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.subscription import Subscription
from slice_ros import msg
from slice_ros.client.callbacks import Callbacks
from slice_ros.ros.qos import STATE


class Presence:
    """Counts the runs of the node at `target`: one that was started again knows no old request.

    `runs` are the numbers of those that are there now, `lost` says that there was one and there
    is none, and `changed` is called, in the callbacks, when either changes.
    """

    def __init__(self, callbacks: Callbacks, target: str, changed: Callable[[], None]) -> None:
        self.runs: frozenset[int] = frozenset()
        self._begun, self._changed = 0, changed
        self._node = callbacks.node
        try:
            self._subscription = self._subscribe(callbacks, target, liveliness=lambda now: (
                self._count(now.alive_count_change, now.not_alive_count_change)))
        except UnsupportedEventTypeError:  # a middleware that has no leases
            self._subscription = self._subscribe(callbacks, target, matched=lambda now: (
                self._count(now.current_count_change, 0)))

    @property
    def lost(self) -> bool:
        return self._begun > 0 and not self.runs

    def close(self) -> None:
        """Look no more."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, callbacks: Callbacks, target: str, **events) -> Subscription:
        # What it says is left as bytes: that it comes says at once that the node is alive.
        return self._node.create_subscription(
            msg.SchedulerState, f'{target}/scheduler_state', lambda _: None, STATE, raw=True,
            callback_group=callbacks.group, event_callbacks=SubscriptionEventCallbacks(**events))

    def _count(self, change: int, killed: int) -> None:
        """Take in by how much those alive and those killed became more."""
        ended = max(killed, -change, 0)
        begun = ended + change
        runs = sorted(self.runs) + list(range(self._begun, self._begun + begun))
        self._begun += begun
        self.runs = frozenset(runs[ended:])  # where one replaces another, the older one ends
        self._changed()
