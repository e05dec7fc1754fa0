# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The timer of the node that opens the gate of its server while requests are live."""

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros.ros.compat import idle_timer
from slice_ros.ros.parameters import Settings
from slice_ros.serving import Gate, RateControl

# While no token is due, ticks within rate_control.stall_s that only show that time passes.
TICKS_PER_STALL = 5


class GateTimer:
    """Opens `gate` on the node's clock and executor, while `busy()` returns that requests live.

    It ticks every `rate_control.period_s` while anything is computed. While all requests wait for
    their due times, it ticks at the first of these, and often enough to show that time passes.
    Without requests it does not tick: call `wake` before a request is submitted.
    """

    def __init__(self, node: Node, config: RateControl, busy: Callable[[], bool],
                 group: CallbackGroup) -> None:
        self.gate = Gate(config)
        self._busy, self._clock, self._period = busy, node.get_clock(), config.period_s
        self._timer = idle_timer(node, self._period, self._tick, callback_group=group)

    @property
    def ticking(self) -> bool:
        """Whether the timer runs."""
        return not self._timer.is_canceled()

    def wake(self) -> None:
        """Tick as often as a new request may need; only for the executor's thread."""
        if not self.ticking:
            self._open()
        self.gate.restful = False
        self._tick_every(self.gate.config.period_s)

    def reconfigure(self, before: Settings, after: Settings) -> None:
        """Use the new rate control from now on."""
        config = after.rate_control
        if config == before.rate_control:
            return
        self.gate.config, self.gate.restful = config, False
        if self.ticking:
            self._tick_every(config.period_s)
        self.gate.wake()

    def _open(self) -> None:
        self.gate.open(self._clock.now().nanoseconds / 1e9)

    def _tick(self) -> None:
        self._open()
        if not self._busy():
            self._timer.cancel()
            return
        gate, config = self.gate, self.gate.config
        longest = config.stall_s / TICKS_PER_STALL * gate.speed   # on the node's clock
        self._tick_every(max(min(gate.left(), longest), config.period_s))

    def _tick_every(self, seconds: float) -> None:
        if seconds != self._period or not self.ticking:
            self._period = seconds
            self._timer.timer_period_ns = int(seconds * 1e9)
            self._timer.reset()   # else the next tick would come after the old period
