# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The executor of the node: rclpy's single-threaded one, in which a coroutine that waits rests.

rclpy runs every coroutine that waits in each of its rounds, only to find that it still waits. With
a hundred open requests that took the executor 4 ms a message, which all others had to wait for.
"""

import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future
from slice_ros.ros.compat import leave_out, put_back

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
        if leave_out(self, entry):
            future.add_done_callback(lambda _: put_back(self, entry))


class Awaited(Future):
    """A future that a coroutine awaits on any executor, and on an `Executor` without cost."""

    def __await__(self):
        """Wait for the result, or raise the exception."""
        while not self.done():
            executor = getattr(_spinning, 'executor', None)
            if executor is not None:
                executor.rest_until(self)
            yield self   # an executor that resumes coroutines by itself awaits what they yield
        return self.result()
