# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The timer of the node that opens the gate of its server, while requests live."""

from collections.abc import Callable

from rclpy.node import Node

from slice_ros.serving import Gate, RateControl

LIFE_SIGNS = 5   # ticks within rate_control.stall_s where these need only say that time goes on


class Pacer:
    """Opens `gate` on the node's clock and executor, as long as `busy` says that requests live.

    A node at rest does not tick: `wake` has to be called before a request is taken in.
    """

    def __init__(self, node: Node, config: RateControl, busy: Callable[[], bool], group) -> None:
        self.gate = Gate(config)
        self._busy, self._clock = busy, node.get_clock()
        self._timer = node.create_timer(_period(config), self._tick, callback_group=group,
                                        autostart=False)

    def wake(self) -> None:
        """Begin to tick, if that has ended; for the executor's thread."""
        if self._timer.is_canceled():
            self._open()
            self._timer.reset()

    def reconfigure(self, config: RateControl) -> None:
        """Go by other values from now on."""
        self.gate.config = config
        self._timer.timer_period_ns = int(_period(config) * 1e9)
        if not self._timer.is_canceled():
            self._timer.reset()
        self.gate.wake()

    def _open(self) -> None:
        self.gate.open(self._clock.now().nanoseconds / 1e9)

    def _tick(self) -> None:
        self._open()
        if not self._busy():
            self._timer.cancel()


def _period(config: RateControl) -> float:
    if config.mode == 'paced':
        return config.period_s
    return max(config.period_s, config.stall_s / LIFE_SIGNS)
