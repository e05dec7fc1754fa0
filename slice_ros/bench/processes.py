# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that a benchmark starts, and ends by their own ids: the node and its ROS clients.

A worker is a module of this package that runs as a program. It writes JSON lines to its standard
output, reads them from its standard input, and ends when that is closed. So no worker is left
when the benchmark itself is killed.
"""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
from queue import Empty, SimpleQueue
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

END_WITHIN = 20.0   # seconds that a process gets to end by itself
LAST_LINES = 5      # of a log, in the sentence that says that its process has ended


def own_domain() -> None:
    """Choose a ROS domain, unless one is set: other nodes neither receive nor send anything."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(10, 100)))


def end_as_interrupted() -> None:
    """Make SIGTERM do what Ctrl-C does: blocks are left, and end what they have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end of the block.

    The exception of a signal between the start of a process and the assignment of its id would
    leave a process that nobody knows. Signals reach the main thread alone.
    """
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number))
              for number in (signal.SIGINT, signal.SIGTERM)
              } if threading.current_thread() is threading.main_thread() else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


class Process:
    """A Python module that runs as a program; what it prints to standard error is its log.

    It ends with this program at the latest, wherever that is interrupted.
    """

    def __init__(self, *arguments: str, python: str = sys.executable, **pipes) -> None:
        self._log = tempfile.NamedTemporaryFile('w+', prefix='slice_bench_', suffix='.log')
        with uninterrupted():
            self.process = subprocess.Popen([python, '-m', *arguments], stderr=self._log,
                                            **{'stdout': self._log, **pipes})
            atexit.register(self.close)

    def __enter__(self) -> 'Process':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return what it has printed so far."""
        return Path(self._log.name).read_text()

    def end_of_log(self) -> str:
        """Return the last lines of its log."""
        return '\n'.join(self.log().splitlines()[-LAST_LINES:])

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let it end by itself, and kill it if it does not."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        self._wait()

    def _wait(self) -> None:
        try:
            self.process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()
        atexit.unregister(self.close)


class NodeProcess(Process):
    """The slice node of this checkout, with parameters NAME:=VALUE."""

    def __init__(self, options: list[str]) -> None:
        super().__init__('slice_ros.ros.main', '--ros-args',
                         *(part for option in options for part in ('-p', option)))

    def resident_bytes(self) -> int | None:
        """Return its resident memory; None if it has ended."""
        try:
            pages = Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]
        except (OSError, IndexError):
            return None
        return int(pages) * resource.getpagesize()


class Worker(Process):
    """A module of this package that runs as a program beside the node."""

    def __init__(self, module: str, *arguments: object, **options) -> None:
        super().__init__(module, *map(str, arguments), text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        self.module = module
        self._lines: SimpleQueue = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, **fields) -> None:
        """Send a line. Raises ``ValueError`` when the worker has ended."""
        try:
            self.process.stdin.write(json.dumps(fields) + '\n')
            self.process.stdin.flush()
        except OSError as error:
            raise ValueError(f'{self.module} ended: {self.end_of_log()}') from error

    def lines(self) -> list[dict]:
        """Return the lines that have arrived since the last call."""
        found = []
        try:
            while True:
                found.append(self._lines.get_nowait())
        except Empty:
            return found

    def line(self, timeout: float, still: Callable[[], bool] = lambda: True) -> dict | None:
        """Wait for a line; return None after `timeout` seconds or when `still` is false.

        Raises ``ValueError`` when the worker has ended.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end and still():
            try:
                return self._lines.get(timeout=0.1)
            except Empty:
                if not self.alive and self._lines.empty():
                    raise ValueError(f'{self.module} ended: {self.end_of_log()}') from None
        return None

    def close(self) -> None:
        """Let it end by closing its input."""
        try:
            self.process.stdin.close()
        except OSError:  # it has ended
            pass
        self._wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:  # the last line of a killed worker may be cut off
                pass


def report(**fields) -> None:
    """Write a line of a worker. Its benchmark reads it with `Worker.line`."""
    sys.stdout.write(json.dumps(fields) + '\n')
    sys.stdout.flush()


def orders() -> SimpleQueue:
    """Return the queue of the lines that a worker is sent; the worker ends with its input.

    Ctrl-C reaches every process of a terminal: a worker leaves it to its benchmark.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines: SimpleQueue = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(json.loads(line))
        os._exit(0)  # the main thread may wait for an answer that never comes
    threading.Thread(target=read, daemon=True).start()
    return lines
