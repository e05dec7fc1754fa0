# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process of the router: signals, and an orderly end."""

import logging
import signal
import sys
import time

import rclpy
from rclpy.signals import SignalHandlerOptions
from slice_ros.errors import one_line
from slice_ros.ros.isolation.executor import Executor
from slice_ros.router.router_node import RouterNode

SPIN_TIME = 0.2       # seconds; a signal is noticed between two waits
ANSWER_TIME = 2.0     # seconds to send the last answers
FLUSH = 0.3           # seconds for the messages of rclpy and the middleware that follow an answer
EXIT_PARAMETERS = 2   # the parameters cannot be used


def main(args: list[str] | None = None) -> int:
    """Run the router until SIGINT or SIGTERM; return the exit code."""
    reasons = []  # to stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: reasons.append(number))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RouterNode()
    except ValueError as error:
        rclpy.logging.get_logger('slice_router').fatal(f'parameters: {one_line(error)}')
        rclpy.shutdown()
        return EXIT_PARAMETERS
    executor = Executor()
    executor.add_node(node)
    node.get_logger().info('routing to ' + ', '.join(node.forwarding.links))
    while not reasons:
        _spin(executor, SPIN_TIME)
    node.close()
    end = time.monotonic() + ANSWER_TIME
    while node.waiting and time.monotonic() < end:
        _spin(executor, SPIN_TIME)
    end = time.monotonic() + FLUSH
    while time.monotonic() < end:
        _spin(executor, FLUSH)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return 0


def _spin(executor: Executor, seconds: float) -> None:
    """Run a callback; one that fails must not stop the others."""
    try:
        executor.spin_once(seconds)
    except Exception:
        logging.getLogger('slice_ros.router').exception('a callback failed')


if __name__ == '__main__':
    sys.exit(main())
