# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The timer of the node that opens the gate of its server, while requests live."""

from collections.abc import Callable

from rclpy.node import Node
from slice_ros.serving import Gate, RateControl

LIFE_SIGNS = 5   # ticks within rate_control.stall_s where these need only say that time goes on


class Pacer:
    """Opens `gate` on the node's clock and executor, as long as `busy` says that requests live.

    It ticks every `rate_control.period_s` while something is computed, and where all wait for
    their due times only at the first of these, or to say that time goes on. A node at rest does
    not tick: `wake` has to be called before a request is taken in.
    """

    def __init__(self, node: Node, config: RateControl, busy: Callable[[], bool], group) -> None:
        self.gate = Gate(config)
        self._busy, self._clock, self._period = busy, node.get_clock(), config.period_s
        self._timer = node.create_timer(self._period, self._tick, callback_group=group,
                                        autostart=False)

    def wake(self) -> None:
        """Tick as often as a request that comes may need; for the executor's thread."""
        if self._timer.is_canceled():
            self._open()
        self.gate.restful = False
        self._tick_every(self.gate.config.period_s)

    def reconfigure(self, config: RateControl) -> None:
        """Go by other values from now on."""
        self.gate.config, self.gate.restful = config, False
        if not self._timer.is_canceled():
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
        life_sign = config.stall_s / LIFE_SIGNS * gate.speed   # on the node's clock
        self._tick_every(max(min(gate.left(), life_sign), config.period_s))

    def _tick_every(self, seconds: float) -> None:
        if seconds != self._period or self._timer.is_canceled():
            self._period = seconds
            self._timer.timer_period_ns = int(seconds * 1e9)
            self._timer.reset()   # the next tick would come by the old period
