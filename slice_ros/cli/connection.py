# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS node with a client, spun by a command-line program itself."""

from collections.abc import Coroutine

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from slice_ros.client import SliceClient

SPIN_TIME = 0.1  # seconds; Ctrl-C is noticed between two waits


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

    def __enter__(self) -> 'Connection':
        return self

    def __exit__(self, *error: object) -> None:
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
        return self._executor.create_task(task)

    def run(self, coroutine: Coroutine):
        """Spin until a coroutine is done, and return its result."""
        task = self.start(coroutine)
        while not task.done():
            self.spin()
        return task.result()
