# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process around the node: signals, autostart, an orderly end.

The executor spins in a thread of its own, so that the main thread is free for signals: at the
first SIGINT or SIGTERM live requests are answered while everything still runs, and only then is
ROS shut down. Heavy modules are imported after the signal handlers are in place.
"""

import logging
import os
import signal
import sys
import threading
import time

GLANCE = 0.1          # seconds between looks whether a signal has come
EXIT_FAILED = 1       # the model cannot be loaded
EXIT_PARAMETERS = 2   # the parameters cannot be used


class _ToRos(logging.Handler):
    """Passes the records of the Python loggers of this package on to the node's logger."""

    def __init__(self, logger) -> None:
        super().__init__()
        self._logger = logger
        self.setFormatter(logging.Formatter('%(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy ties a severity to the line it is called from, so each has a line of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; return the exit code."""
    told = []  # why it is to stop; not an event, whose lock a signal handler may find held
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: told.append(number))

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
        if not task.result() and not told:
            failed = True  # whoever started it alone would wait for ever
            told.append('it cannot be loaded')
    if node.settings.autostart:
        executor.create_task(node.start).add_done_callback(started)
        executor.wake()
    while not told:
        time.sleep(GLANCE)
    node.get_logger().info('stopping')
    waiting = node.waiting
    node.close()
    loaded = node.wait(2.0)
    if waiting:
        _answer_all(node)
    executor.shutdown()
    spinner.join(2.0)
    node.destroy_node()
    rclpy.shutdown()
    code = EXIT_FAILED if failed else 0
    if not loaded or spinner.is_alive():
        # Deep in native code: ending the interpreter under it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _answer_all(node) -> None:
    """Let the executor send what `close` has made the answers of, within 2 s."""
    end = time.monotonic() + 2.0
    while node.waiting and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)  # for the tasks of rclpy that follow, and the threads of the middleware


def _spin(executor, node) -> None:
    from rclpy.executors import ExternalShutdownException, ShutdownException
    while True:
        try:
            executor.spin()
            return
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception:  # one bad callback must not silence the node
            logging.getLogger('slice_ros.ros').exception('a callback failed')


if __name__ == '__main__':
    sys.exit(main())
