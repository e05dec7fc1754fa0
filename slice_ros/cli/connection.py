# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS node with a client, spun by a command-line program itself."""

from collections.abc import Coroutine
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from slice_ros.client import SliceClient
from slice_ros.ros.compat import end_future

SPIN_TIME = 0.1    # seconds; Ctrl-C is noticed between two waits
CANCEL_TIME = 2.0  # seconds for the node to answer what is cancelled at the end


class Connection:
    """Connects to one slice node; use it as a context manager.

    The program handles signals: Ctrl-C raises ``KeyboardInterrupt`` while ROS still runs, so that
    live requests can be cancelled at the end.
    """

    def __init__(self, target: str = 'slice', args: list[str] | None = None) -> None:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('slice_client')
        self.client = SliceClient(self.node, target)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._tasks: list[rclpy.task.Task] = []

    def __enter__(self) -> 'Connection':
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._cancel_all()
        finally:
            self.client.close()
            self._executor.shutdown()
            self.node.destroy_node()
            rclpy.shutdown()

    def spin(self, seconds: float = SPIN_TIME) -> None:
        """Run one callback, or wait `seconds` for one."""
        self._executor.spin_once(seconds)

    def start(self, coroutine: Coroutine) -> rclpy.task.Task:
        """Run a coroutine while this spins; `spin` raises its exceptions."""
        async def task():
            return await coroutine
        self._tasks.append(self._executor.create_task(task))
        return self._tasks[-1]

    def run(self, coroutine: Coroutine):
        """Spin until a coroutine is done, and return its result."""
        task = self.start(coroutine)
        while not task.done():
            self.spin()
        return task.result()

    def _cancel_all(self) -> None:
        """Cancel what is live; wait for the node, or the last messages may be lost at exit."""
        for task in self._tasks:
            end_future(task.cancel)
        self.client.cancel_all()
        end = time.monotonic() + CANCEL_TIME
        while self.client.live and time.monotonic() < end:
            self.spin()
