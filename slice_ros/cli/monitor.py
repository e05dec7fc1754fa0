# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_monitor: the state of a slice node, live in the terminal."""

import argparse
import os
import signal
import sys
import threading
import time

import rclpy
from rclpy.exceptions import NameValidationException
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from rich.live import Live
from slice_ros.cli.dashboard import render
from slice_ros.client.watch import Watch

REDRAW = 0.25        # seconds between two pictures in a terminal
REPRINT = 2.0        # seconds between two pictures in a file or a pipe
PATIENCE = 5.0       # seconds for which --once waits for a node


def main(argv: list[str] | None = None) -> int:
    """Run the program until a signal; return 0, or 1 when --once found no node."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    argv = sys.argv if argv is None else ['slice_monitor', *argv]
    options = _parse(remove_ros_args(argv)[1:])
    sys.stdout.reconfigure(errors='replace')   # a terminal without block characters
    console = Console(width=None if sys.stdout.isatty() or 'COLUMNS' in os.environ else 120)
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with Watch(options.node) as watch:
            if options.once:
                return _once(watch, console, stop, options.seconds)
            _live(watch, console, stop, options.seconds)
    except NameValidationException as error:
        print(f'slice_monitor: {options.node!r:.200} is no name of a node: '
              f'{str(error).splitlines()[0]}', file=sys.stderr)
        return 2
    except BrokenPipeError:       # the reader of the pipe has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        rclpy.shutdown()
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='slice_monitor', description=__doc__,
        epilog='In a terminal the picture is live; Ctrl-C ends it. Elsewhere one is printed every '
               f'{REPRINT:g} s.')
    parser.add_argument('--node', default='slice', metavar='NAME',
                        help='the node to watch, e.g. /robot1/slice (default: slice)')
    parser.add_argument('--once', action='store_true', help='print one picture and end')
    parser.add_argument('--seconds', type=float, default=None, metavar='N',
                        help='end after N seconds; with --once: collect data for N seconds first')
    options = parser.parse_args(argv)
    if options.seconds is not None and not 0 <= options.seconds < threading.TIMEOUT_MAX:
        parser.error('--seconds must be 0 or more')
    return options


def _once(watch: Watch, console: Console, stop: threading.Event, seconds: float | None) -> int:
    end = time.monotonic() + PATIENCE
    while not watch.present and time.monotonic() < end and not stop.wait(.05):
        pass
    stop.wait(seconds or 0.0)
    console.print(render(watch.view(), console.width, None))
    return 0 if watch.present else 1


def _live(watch: Watch, console: Console, stop: threading.Event, seconds: float | None) -> None:
    end = time.monotonic() + (seconds if seconds is not None else threading.TIMEOUT_MAX)

    def more(pause: float) -> bool:
        left = end - time.monotonic()
        return not stop.wait(max(min(pause, left), 0.0)) and left > 0
    if not console.is_terminal:
        while more(REPRINT):
            console.print(render(watch.view(), console.width, None))
            console.print()
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while more(REDRAW):
            live.update(render(watch.view(), console.width, console.height), refresh=True)


if __name__ == '__main__':
    sys.exit(main())
