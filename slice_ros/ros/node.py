"""The process around the node: signals, loading in the background, an orderly end.

The executor spins in a thread of its own, so that the main thread is free for signals: at the
first SIGINT or SIGTERM live requests are answered while everything still runs, and only then is
ROS shut down. Heavy modules are imported after the signal handlers are in place.
"""

import logging
import os
import signal
import sys
import threading

EXIT_FAILED = 1       # the model cannot be loaded
EXIT_PARAMETERS = 2   # the parameters cannot be used


class _Stopped(Exception):
    """Raised inside the loader when the node is asked to stop."""


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
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from slice_ros.ros.interfaces import SliceNode
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
    failures: list[str] = []
    loader = threading.Thread(target=_load, args=(node, stop, failures), name='loader',
                              daemon=True)
    loader.start()
    stop.wait()
    node.get_logger().info('stopping')
    node.close()
    loader.join(2.0)
    executor.shutdown()
    spinner.join(2.0)
    node.destroy_node()
    rclpy.shutdown()
    code = EXIT_FAILED if failures else 0
    if loader.is_alive() or spinner.is_alive():
        # Deep in native code: ending the interpreter under it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


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


def _load(node, stop: threading.Event, failures: list[str]) -> None:
    from slice_ros.engine import load_engine
    from slice_ros.errors import ModelError
    logger = node.get_logger()
    told = ''

    def progress(what: str, share: float) -> None:
        nonlocal told
        if stop.is_set():
            raise _Stopped
        if what != told:
            told = what
            logger.info(f'{what} ...')
    try:
        engine = load_engine(node.settings.engine, progress)
        latency = engine.profile(progress)
        if not stop.is_set():
            node.serve(engine, latency)
            info = engine.info
            logger.info(
                f'ready: {info.model} on {info.device}, {info.weights} weights, {info.path} '
                f'({info.kernels}), policy {node.settings.server.policy}; a step takes '
                f'{latency.decode(1) * 1e3:.0f} ms for 1 request, {latency.decode(8) * 1e3:.0f} '
                'ms for 8')
    except _Stopped:
        pass
    except ModelError as error:
        failures.append(str(error))
        logger.fatal(f'the model cannot be loaded: {error}')
    except Exception as error:
        failures.append(str(error))
        logging.getLogger('slice_ros.ros').exception('loading failed')
    if failures:
        node.state = 'failed'
        stop.set()


if __name__ == '__main__':
    sys.exit(main())
