# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process of the node: signals, autostart, an orderly end.

The executor spins in a thread of its own, so that the main thread is free for signals. After the
first SIGINT or SIGTERM live requests are answered while everything still runs; ROS is shut down
after that. Heavy modules are imported after the signal handlers are installed.
"""

import logging
import os
import signal
import sys
import threading
import time

POLL = 0.1            # seconds between checks for a signal
ANSWER_TIME = 2.0     # seconds to send the last answers, to end the loader, to end the executor
FLUSH = 0.3           # seconds for the tasks of rclpy and the middleware that follow an answer
EXIT_FAILED = 1       # the model cannot be loaded
EXIT_PARAMETERS = 2   # the parameters cannot be used


class _ToRos(logging.Handler):
    """Forwards the records of this package's Python loggers to the node's logger."""

    def __init__(self, logger) -> None:
        super().__init__()
        self._logger = logger
        self.setFormatter(logging.Formatter('%(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy allows one severity for each calling line, so each has a line of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code."""
    reasons = []  # to stop; no Event: a signal handler could deadlock on its lock
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: reasons.append(number))

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from slice_ros.ros.node import SliceNode
    from slice_ros.ros.parameters import ParameterError

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SliceNode()
    except ParameterError as error:
        rclpy.logging.get_logger('slice').fatal(f'parameters: {error}')
        rclpy.shutdown()
        return EXIT_PARAMETERS
    logger = logging.getLogger('slice_ros')
    logger.addHandler(_ToRos(node.get_logger()))
    logger.setLevel(logging.INFO)
    logger.propagate = False

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, node), name='executor', daemon=True)
    spinner.start()
    failed = False

    def started(task) -> None:
        nonlocal failed
        if not task.result() and not reasons:
            failed = True  # without a lifecycle manager nothing would ever activate it
            reasons.append('it cannot be loaded')
    if node.settings.autostart:
        executor.create_task(node.start).add_done_callback(started)
        executor.wake()
    while not reasons:
        time.sleep(POLL)
    node.get_logger().info('stopping')
    waiting = node.waiting
    node.close()
    loaded = node.wait(ANSWER_TIME)
    if waiting:
        _answer_all(node)
    executor.shutdown()
    spinner.join(ANSWER_TIME)
    node.destroy_node()
    rclpy.shutdown()
    code = EXIT_FAILED if failed else 0
    if not loaded or spinner.is_alive():
        # A thread still runs native code: an ordinary interpreter exit would crash it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _answer_all(node) -> None:
    """Let the executor send the answers of the requests that `close` has ended."""
    end = time.monotonic() + ANSWER_TIME
    while node.waiting and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(FLUSH)


def _spin(executor, node) -> None:
    from rclpy.executors import ExternalShutdownException, ShutdownException
    while True:
        try:
            executor.spin()
            return
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception:  # one failed callback must not stop the others
            logging.getLogger('slice_ros.ros').exception('a callback failed')


if __name__ == '__main__':
    sys.exit(main())
