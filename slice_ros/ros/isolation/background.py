# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One thread for work that takes longer than a callback may take."""

from collections.abc import Callable
import threading

from rclpy.task import Future
from slice_ros.ros.isolation.boundary import logging_faults
from slice_ros.ros.isolation.executor import Awaited


class Background:
    """Runs one piece of work at a time, for a coroutine that awaits its end.

    `wake` is called from the thread at the end: completing a future does not wake an executor.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()   # so that `wait` never joins a thread before its start

    def run(self, work: Callable[[], object]) -> Future:
        """Start `work`; return a future that is completed with None when it has ended."""
        done = Awaited()

        def body() -> None:
            with logging_faults('a transition'):  # what awaits it checks what is missing
                work()
            done.set_result(None)
            self._wake()
        with self._starting:
            self._thread = threading.Thread(target=body, name='transition', daemon=True)
            self._thread.start()
        return done

    def wait(self, timeout: float) -> bool:
        """Wait `timeout` seconds at most for the last work; return whether it has ended."""
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()
