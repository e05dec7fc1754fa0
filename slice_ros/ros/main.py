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
EXIT_ROS = 3          # ROS cannot be started: its arguments, the middleware, its security


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
    from slice_ros.ros.isolation.executor import Executor
    from slice_ros.ros.parameters import ParameterError

    try:
        node = _make_node(args)
    except (ParameterError, RuntimeError) as error:   # rclpy's own are RuntimeErrors
        rclpy.logging.get_logger('slice').fatal(_why_not(error))
        rclpy.try_shutdown()
        return EXIT_PARAMETERS if isinstance(error, ParameterError) else EXIT_ROS
    logger = logging.getLogger('slice_ros')
    logger.addHandler(_ToRos(node.get_logger()))
    logger.setLevel(logging.INFO)
    logger.propagate = False

    executor = Executor()
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


def _make_node(args: list[str] | None):
    """Start ROS and return the node. Raises what rclpy raises, and `ParameterError`."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from slice_ros.ros.node import SliceNode

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    return SliceNode()


def _why_not(error: Exception) -> str:
    """Return one sentence about why there is no node, with what to change."""
    from slice_ros.errors import one_line
    from slice_ros.ros.parameters import ParameterError

    # rcl adds the line of its own source.
    text = one_line(error).partition(', at /')[0].rstrip('.')
    if isinstance(error, ParameterError):
        return f'parameters: {text}'
    if os.environ.get('ROS_SECURITY_ENABLE') == 'true' and 'secur' in text.lower():
        return (f'ROS_SECURITY_ENABLE is true, and security cannot be used: {text}. Give '
                'ROS_SECURITY_KEYSTORE a keystore with an enclave for this node, and use a '
                'middleware that is built with security, which that of the Python wheels is not; '
                'or unset ROS_SECURITY_ENABLE (docs/security.md)')
    return f'ROS cannot be started ({type(error).__name__}): {text}'


def _answer_all(node) -> None:
    """Let the executor send the answers of the requests that `close` has ended."""
    end = time.monotonic() + ANSWER_TIME
    while node.waiting and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(FLUSH)


def _spin(executor, node) -> None:
    from rclpy.executors import ExternalShutdownException, ShutdownException
    from slice_ros.ros.isolation.boundary import logging_faults
    from slice_ros.ros.isolation.placement import place
    with logging_faults('placing the executor'):
        place(node.settings.executor)
    while True:
        try:
            executor.spin()
            return
        except (ExternalShutdownException, ShutdownException):
            return
        except BaseException:  # one failed callback must not stop the others
            logging.getLogger('slice_ros.ros').exception('a callback failed')


if __name__ == '__main__':
    sys.exit(main())
