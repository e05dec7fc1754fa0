# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A few threads for work that grows with what a caller sends: a bounded queue, urgent work first.

Work on large texts or on grammars occupies two threads at most, and work with images, which are
decoded in it, a third: short requests always find one. Work for one session is done in the order
in which it came.
"""

from collections.abc import Callable
from dataclasses import dataclass
import threading

from rclpy.task import Future
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros.isolation.boundary import answering, logging_faults
from slice_ros.ros.isolation.executor import Awaited

HEAVY_THREADS = 2   # for work that is marked as heavy
IMAGE_THREADS = 1   # for work with images, each of which may take 48 MiB decoded
THREADS = HEAVY_THREADS + IMAGE_THREADS + 1


@dataclass(eq=False, slots=True)
class Work:
    """Something to run in a worker; `refuse` is called instead, or with what it raises."""

    run: Callable[[], None]
    refuse: Callable[[RequestError], object]
    utility: float = 1.0   # the most useful work is done first
    session: str = ''      # work of one session stays in order; empty = of none
    heavy: bool = False
    images: bool = False   # it decodes images


class Workers:
    """Threads that are started when there is work; any thread may call every method.

    `wake` is called when a future of `compute` is complete: that does not wake an executor.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._waiting: list[Work] = []   # in order of arrival
        self._running: list[Work] = []
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, work: Work, most: float) -> None:
        """Queue `work`, where `most` may wait; a full queue drops its least useful work for it.

        Raises `RequestError`: QUEUE_FULL when nothing that waits is less useful, SHUTTING_DOWN.
        """
        dropped = None
        with self._changed:
            if self._closed:
                raise _shutting_down()
            self._start_thread()
            if len(self._waiting) >= most:
                dropped = min(reversed(self._waiting), key=lambda other: other.utility)
                if dropped.utility >= work.utility:
                    raise RequestError(
                        ErrorCode.QUEUE_FULL, f'{len(self._waiting)} requests wait to be read '
                        'already: try again later, or raise limits.max_queued')
                self._waiting.remove(dropped)
            self._waiting.append(work)
            self._changed.notify()   # where one thread finds no work that may begin, none does
        if dropped is not None:
            with logging_faults('refusing a request'):
                dropped.refuse(RequestError(
                    ErrorCode.QUEUE_FULL, 'a more useful request took its place in the queue: '
                    'try again later, or raise limits.max_queued'))

    def compute(self, function: Callable[[], object], most: int, **marks) -> Future:
        """Return a future of what `function` returns; `marks` are fields of `Work`.

        It carries a `RequestError` when there is no result. Raises as `submit` does.
        """
        future = Awaited()

        def run() -> None:
            future.set_result(function())
            self._wake()

        def refuse(error: RequestError) -> None:
            future.set_exception(error)
            self._wake()
        self.submit(Work(run, refuse, **marks), most)
        return future

    def withdraw(self, work: Work) -> bool:
        """Forget work that still waits: it is neither run nor refused. Return whether it did."""
        with self._changed:
            waits = work in self._waiting
            if waits:
                self._waiting.remove(work)
            return waits

    def close(self) -> None:
        """Refuse all work that waits, and any more."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for work in waiting:
            with logging_faults('refusing a request'):
                work.refuse(_shutting_down())

    def wait(self, timeout: float) -> bool:
        """Wait for running work after `close`; return whether all threads have ended."""
        for thread in self._threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=self._run, name='worker', daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        while (work := self._take()) is not None:
            with logging_faults('refusing a request'), answering(work.refuse, 'reading a request'):
                work.run()
            with self._changed:
                self._running.remove(work)
                if self._waiting:
                    self._changed.notify_all()
            del work   # so that a thread without work keeps no request

    def _take(self) -> Work | None:
        """Wait for work that may begin; None once closed."""
        with self._changed:
            while (work := self._next()) is None:
                if self._closed:
                    return None
                self._changed.wait()
            self._waiting.remove(work)
            self._running.append(work)
            return work

    def _next(self) -> Work | None:
        """Return the most useful work that may begin now, the oldest of these."""
        sessions = {work.session for work in self._running}
        heavy = sum(work.heavy and not work.images for work in self._running)
        images = sum(work.images for work in self._running)
        best = None
        for work in self._waiting:
            if work.session and work.session in sessions:
                continue
            sessions.add(work.session)   # what comes later for this session waits for it
            if images >= IMAGE_THREADS if work.images else work.heavy and heavy >= HEAVY_THREADS:
                continue
            if best is None or work.utility > best.utility:
                best = work
        return best


def _shutting_down() -> RequestError:
    return RequestError(ErrorCode.SHUTTING_DOWN, 'the node ends: send it to the next one')
