# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a client does its work: in callbacks of the caller's node, one at a time.

Other threads (a reader in asyncio, the garbage collector) only queue a function and trigger a
guard condition. Nothing here waits, and nothing blocks the executor.
"""

from collections import deque
from collections.abc import Callable
import threading

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.timer import Timer
from slice_ros.client.answer import Waiter
from slice_ros.ros.compat import idle_timer


class Callbacks:
    """One callback group of `node`: functions queued by any thread, and timers in real time.

    `lock` is locked while a function runs. `close` takes it too, so it never interrupts one.
    """

    def __init__(self, node: Node) -> None:
        self.node, self.group = node, MutuallyExclusiveCallbackGroup()
        self.lock, self.closed = threading.RLock(), False
        self.queue: deque[Callable[[], None]] = deque()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # time-outs are real time
        self._guard = node.create_guard_condition(self._run_queue, callback_group=self.group)

    def post(self, function: Callable[[], None]) -> None:
        """Have the executor run `function`. Takes no lock: any thread may call it at any time."""
        self.queue.append(function)
        try:
            self._guard.trigger()
        except InvalidHandle:  # closed: nothing is live
            pass

    def run(self, function: Callable[[], None]) -> None:
        """Run `function` now, unless this is closed."""
        with self.lock:
            if not self.closed:
                function()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, after `seconds`; destroying the timer prevents the call."""
        def fire() -> None:
            self.node.destroy_timer(timer)
            callback()
        timer = idle_timer(self.node, seconds, fire, callback_group=self.group,
                           clock=self._steady)
        timer.reset()  # started only now, since `fire` uses the name
        return timer

    async def sleep(self, seconds: float) -> None:
        """Let other callbacks run for `seconds`."""
        waiter = Waiter()
        timer = self.after(seconds, waiter.wake)
        try:
            await waiter
        finally:
            self.node.destroy_timer(timer)

    def close(self) -> None:
        """Run nothing from now on."""
        with self.lock:
            self.closed = True
            self.node.destroy_guard_condition(self._guard)

    def _run_queue(self) -> None:
        while self.queue:
            self.run(self.queue.popleft())
