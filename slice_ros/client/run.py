# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process of a planner node: signals, and an orderly end."""

from collections.abc import Callable
import signal
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

SPIN_TIME = 0.2  # seconds; a signal is noticed between two waits


def run_node(make: Callable[[], Node], args: list[str] | None = None) -> None:
    """Spin the node that `make` returns until SIGINT or SIGTERM, then destroy it.

    ROS is shut down after that, so that `destroy_node` can still cancel live requests. By default
    rclpy shuts it down at the signal, while a callback may run.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = make()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(SPIN_TIME)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
