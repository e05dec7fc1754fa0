# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a client's work is done: one callback of the caller's node at a time, whoever asks for it.

Other threads (a reader in asyncio, the garbage collector) only leave word and trigger a guard
condition. Nothing here waits, and nothing blocks the executor.
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


class Callbacks:
    """One callback group of `node`: words from any thread, and timers in real time.

    `lock` is held while a word is done; `close` takes it, so that it cuts across none.
    """

    def __init__(self, node: Node) -> None:
        self.node, self.group = node, MutuallyExclusiveCallbackGroup()
        self.lock, self.closed = threading.RLock(), False
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # time-outs are real time
        self._words: deque[Callable[[], None]] = deque()
        self._guard = node.create_guard_condition(self._take_words, callback_group=self.group)

    def say(self, word: Callable[[], None]) -> None:
        """Have `word` done by the executor. Takes no lock: any thread may, amid anything."""
        self._words.append(word)
        try:
            self._guard.trigger()
        except InvalidHandle:  # closed: nothing is live
            pass

    def do(self, word: Callable[[], None]) -> None:
        """Do `word` now, unless all is closed."""
        with self.lock:
            if not self.closed:
                word()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, after `seconds`; who loses interest destroys the timer."""
        def fire() -> None:
            self.node.destroy_timer(timer)
            callback()
        timer = self.node.create_timer(seconds, fire, callback_group=self.group,
                                       clock=self._steady, autostart=False)
        timer.reset()  # only now: `fire` needs its name
        return timer

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        waiter = Waiter()
        timer = self.after(seconds, waiter.wake)
        try:
            await waiter
        finally:
            self.node.destroy_timer(timer)

    def close(self) -> None:
        """Do nothing from now on."""
        with self.lock:
            self.closed = True
            self.node.destroy_guard_condition(self._guard)

    def _take_words(self) -> None:
        while self._words:
            self.do(self._words.popleft())
