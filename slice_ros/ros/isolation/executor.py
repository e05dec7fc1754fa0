# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The executor of the node: rclpy's single-threaded one, in which a coroutine that waits rests.

rclpy runs every coroutine that waits in each of its rounds, only to find that it still waits. With
a hundred open requests that took the executor 4 ms a message, which all others had to wait for.
"""

import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

_spinning = threading.local()   # .executor: the one whose callbacks this thread runs


class Executor(SingleThreadedExecutor):
    """Runs callbacks one at a time; what awaits an `Awaited` runs again when that is complete."""

    def wait_for_ready_callbacks(self, *args, **kwargs):
        """Return what to run next, as rclpy does, and remember it."""
        _spinning.executor = self
        self._running = super().wait_for_ready_callbacks(*args, **kwargs)
        return self._running

    def rest_until(self, future: Future) -> None:
        """Leave out the coroutine that runs now until `future` is complete."""
        entry = self._running
        with self._tasks_lock:
            if not entry[0].executing() or entry not in self._tasks:
                return
            self._tasks.remove(entry)
        future.add_done_callback(lambda _: self._go_on(entry))

    def _go_on(self, entry: tuple) -> None:
        with self._tasks_lock:
            self._tasks.append(entry)
        self.wake()


class Awaited(Future):
    """A future that a coroutine awaits on any executor, and on an `Executor` without cost."""

    def __await__(self):
        """Wait for the result, or raise the exception."""
        while not self.done():
            executor = getattr(_spinning, 'executor', None)
            if executor is not None:
                executor.rest_until(self)
            yield
        return self.result()
