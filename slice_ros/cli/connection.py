# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the command-line programs share: a ROS node with a client, spun by the program itself."""

from collections.abc import Coroutine

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from slice_ros.client import SliceClient

GLANCE = 0.1  # seconds; Ctrl-C is only seen between two waits


class Connection:
    """Talks to one slice node; use it as a context manager.

    Signals stay with the program: Ctrl-C is a ``KeyboardInterrupt`` while ROS still runs, so that
    what is live can be cancelled on the way out.
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

    def spin(self, seconds: float = GLANCE) -> None:
        """Take one thing in, or wait so long for it."""
        self._executor.spin_once(seconds)

    def start(self, coroutine: Coroutine) -> rclpy.task.Task:
        """Run a coroutine while this spins; what it raises is raised by `spin`."""
        async def task():
            return await coroutine
        return self._executor.create_task(task)

    def run(self, coroutine: Coroutine):
        """Spin until a coroutine is done; return its result."""
        task = self.start(coroutine)
        while not task.done():
            self.spin()
        return task.result()
